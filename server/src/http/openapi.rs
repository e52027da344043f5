//! What describes the service: the OpenAPI document, for programs, and its page, for people.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, Object, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, ResponseBuilder, Type,
};
use utoipa::{PartialSchema as _, ToSchema as _};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::http::app::App;
use crate::http::auth::{COOKIE, OPEN};
use crate::http::problem::Problem;
use crate::http::problem::wire::{ErrorFormat, OpenAiError, OpenAiFault, Report};

/// The document before any route is added.
pub(crate) fn front() -> OpenApi {
    let info =
        InfoBuilder::new().title("exile").version(env!("CARGO_PKG_VERSION")).description(Some(
            "Runs conversations as state graphs. Every error is an RFC 9457 problem, but under `/v1`, \
             where it has the shape of OpenAI's. A key with \
             the scope `act_as` may name the user it acts for in `X-Exile-User`.",
        ));
    OpenApiBuilder::new().info(info.build()).build()
}

/// Adds what holds for every operation: how to show who you are, and what an error looks like.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    components.schemas.insert(Report::name().into_owned(), Report::schema());
    components.schemas.insert(OpenAiError::name().into_owned(), OpenAiError::schema());
    components.schemas.insert(OpenAiFault::name().into_owned(), OpenAiFault::schema());
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    components.add_security_scheme("key", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    for (path, item) in &mut document.paths.paths {
        let all = [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete];
        for operation in all.into_iter().flatten() {
            describe(operation, OPEN.contains(&path.as_str()), ErrorFormat::of(path));
        }
        if let Some(post) = &mut item.post {
            post.parameters.get_or_insert_default().push(idempotency_key().into());
        }
    }
    document
}

/// What may become of a run while another one of its conversation goes on.
pub(crate) fn if_active() -> Object {
    choice(["reject", "enqueue", "interrupt", "rollback"], Some("enqueue"))
}

/// What becomes of a run whose caller leaves.
pub(crate) fn on_disconnect() -> Object {
    choice(["continue", "cancel"], Some("continue"))
}

/// When the records of a run may be stored.
pub(crate) fn durability() -> Object {
    choice(["sync", "async", "exit"], None)
}

fn choice<const N: usize>(values: [&str; N], usual: Option<&str>) -> Object {
    let object = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values));
    object.default(usual.map(Into::into)).build()
}

fn idempotency_key() -> Parameter {
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The same key and body again get the first answer, as it was, for 24 hours; 409 while it \
             is made; 422 with another body. After 24 hours the key begins something new",
        ))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String).max_length(Some(255))))
        .build()
}

fn describe(operation: &mut Operation, open: bool, format: ErrorFormat) {
    if !open {
        let none = Vec::<String>::new;
        let key = SecurityRequirement::new("key", none());
        let session = SecurityRequirement::new("session", none());
        operation.security = Some(vec![key, session]);
    }
    let (name, kind) = match format {
        ErrorFormat::Problem => (Report::name(), "application/problem+json"),
        ErrorFormat::OpenAi => (OpenAiError::name(), "application/json"),
    };
    let report = Ref::from_schema_name(name);
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(report))).build();
    let problem = ResponseBuilder::new()
        .description("A problem: what went wrong and what to do")
        .content(kind, content)
        .build();
    operation.responses.responses.insert("default".into(), problem.into());
}

/// The document as a page. Its files are in the binary: no CDN.
pub(crate) fn browser() -> Router<Arc<App>> {
    let page = SwaggerUi::new("/api/docs").config(Config::from("/api/openapi.json"));
    Router::from(page).layer(middleware::from_fn(policy))
}

/// Swagger UI styles elements from its script and draws with `data:` images.
async fn policy(request: Request, next: Next) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                          img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
                          base-uri 'none'; form-action 'none'";
    let mut response = next.run(request).await;
    if response.status().is_client_error() {
        // Swagger UI says in plain text that it has no such file.
        return Problem::NotFound.into_response();
    }
    let value = HeaderValue::from_static(POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, value);
    response
}
