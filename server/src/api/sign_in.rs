//! Signing in with a one-time link, and out.
//!
//! Invariants:
//! - Looking at a link spends nothing: it shows a page with one button, so that whoever fetches links
//!   before people do (mail filters, previews, `HEAD`) signs nobody in. The button does.
//! - A link is not spent where the browser would drop the session's cookie.
//! - Wrong tokens are bounded in number (`http/auth/guesses.rs`), and all of them get one answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{Html, IntoResponse, NoContent, Redirect, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::home_page::{escape, shown_if};
use crate::http::app::{App, Settings};
use crate::http::auth::guesses::Most;
use crate::http::auth::origin::{is_own_or_no_browsers, keeps_cookies};
use crate::http::auth::{COOKIE, Caller};
use crate::http::body;
use crate::http::extract::Query;
use crate::http::peer::Peer;
use crate::http::problem::Problem;

/// This file's routes.
pub(super) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(show, sign_in)).routes(routes!(sign_out))
}

/// Styled like the first page; its one form goes to this server.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

/// The link's token.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LinkQuery {
    /// Works once, for ten minutes.
    token: Option<String>,
}

/// What the page's button sends.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignInForm {
    /// That of the link.
    token: String,
}

/// A request of somebody who wants to sign in.
struct Visit<'a> {
    app: &'a App,
    headers: &'a HeaderMap,
    /// Whose connection it came over; `None` without one.
    peer: Option<IpAddr>,
}

/// A page with a button that signs in. The link is not spent by looking at it.
#[utoipa::path(
    get, path = "/sign-in", tag = "access",
    params(LinkQuery),
    responses((status = 200, body = String, content_type = "text/html")),
)]
async fn show(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    Query(query): Query<LinkQuery>,
) -> Response {
    let peer = peer.map(|Extension(Peer(address))| address);
    Visit { app: &app, headers: &headers, peer }.page(query.token.as_deref(), None)
}

/// Opens a session and goes to the first page.
#[utoipa::path(
    post, path = "/sign-in", tag = "access",
    request_body(content = SignInForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "Signed in; the cookie is set")),
)]
async fn sign_in(
    State(app): State<Arc<App>>,
    peer: Option<Extension<Peer>>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let peer = peer.map(|Extension(Peer(address))| address);
    let visit = Visit { app: &app, headers: &parts.headers, peer };
    let redeemed = async { visit.redeem(&body::read(&app, &parts, body).await?).await };
    match redeemed.await {
        Ok(session) => {
            let cookie = format!("{COOKIE}={session}; Path=/; Secure; HttpOnly; SameSite=Strict");
            // Relative, so that it holds below whatever path a proxy puts the server at.
            ([(header::SET_COOKIE, cookie)], Redirect::to("./")).into_response()
        }
        Err(problem) => visit.refuse(problem),
    }
}

impl Visit<'_> {
    /// The session that the token of a form is worth.
    async fn redeem(&self, form: &[u8]) -> Result<String, Problem> {
        const WRONG: Problem =
            Problem::Unauthorized("the sign-in link was used before or is older than ten minutes");
        let Settings { url, trusted_proxies, limits, .. } = &self.app.settings;
        if !is_own_or_no_browsers(self.headers, url) {
            return Err(Problem::Origin);
        }
        if self.headers.contains_key(header::ORIGIN) && !self.keeps_cookies() {
            return Err(Problem::Insecure);
        }
        let form = serde_urlencoded::from_bytes::<SignInForm>(form);
        let SignInForm { token } = form.map_err(|e| Problem::Unreadable(e.to_string()))?;
        let address = self.peer.map(|peer| trusted_proxies.client(self.headers, peer));
        let most = Most { of_one: limits.sign_ins, of_all: limits.sign_ins_in_all };
        let now = self.app.env.monotonic();
        let wait = self.app.guesses.wait(address, now, most);
        if wait > Duration::ZERO {
            return Err(Problem::TooManyAttempts(wait));
        }
        let Some((session, user)) = self.app.store.redeem_sign_in(&token).await? else {
            self.app.guesses.note(address, now, most);
            return Err(WRONG);
        };
        tracing::info!(user = user.name, "signed in with a link");
        Ok(session)
    }

    fn keeps_cookies(&self) -> bool {
        let Settings { url, trusted_proxies, .. } = &self.app.settings;
        keeps_cookies(self.headers, url, trusted_proxies.is_https(self.headers, self.peer))
    }

    /// A refusal, to people as a page.
    fn refuse(&self, problem: Problem) -> Response {
        let accepted = self.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let by_person = accepted.is_some_and(|types| types.contains("text/html"));
        // What went wrong inside is for the log alone, which a problem finds its way to.
        if !by_person || problem.status().is_server_error() {
            return problem.into_response();
        }
        let (mut shown, refusal) = (self.page(None, Some(&problem)), problem.into_response());
        *shown.status_mut() = refusal.status();
        let retry_after = refusal.headers().get(header::RETRY_AFTER).cloned();
        shown.headers_mut().extend(retry_after.map(|after| (header::RETRY_AFTER, after)));
        shown
    }

    fn page(&self, token: Option<&str>, failed: Option<&Problem>) -> Response {
        let secure = self.keeps_cookies() && !matches!(failed, Some(Problem::Insecure));
        let port = self.app.settings.listening.rsplit(':').next().unwrap_or_default();
        let ready = token.is_some() && secure;
        let html = include_str!("../../console/sign-in.html")
            .replace("{failed}", shown_if(failed.is_some()))
            .replace("{why}", &failed.map(|why| escape(&why.to_string())).unwrap_or_default())
            .replace("{insecure}", shown_if(!secure))
            .replace("{port}", &escape(port))
            .replace("{ready}", shown_if(ready))
            .replace("{without}", shown_if(token.is_none()))
            .replace("{token}", &escape(token.filter(|_| ready).unwrap_or_default()));
        let headers = [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::CACHE_CONTROL, "no-store"),
            // Without a referrer browsers send `Origin: null`, even from our own page.
            (header::REFERRER_POLICY, "same-origin"),
        ];
        (headers, Html(html)).into_response()
    }
}

/// Ends the session of the cookie; with a key there is none to end.
#[utoipa::path(
    post, path = "/api/sign-out", tag = "access",
    responses((status = 204)),
)]
async fn sign_out(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<impl IntoResponse, Problem> {
    if let Some(session) = &caller.session {
        app.store.end_session(session).await?;
    }
    let cookie = format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0");
    Ok(([(header::SET_COOKIE, cookie)], NoContent))
}
