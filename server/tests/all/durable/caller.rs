//! Which task of which run asks a model, for the counter to write down.
//!
//! A model's request names neither. The engine's spans do: a provider is called inside the span of
//! the call, which is inside that of its task, which is inside that of its run.

use std::sync::Arc;

use async_trait::async_trait;
use exile_engine::model::{DeltaSender, ModelReply, ModelRequest, Provider, ProviderError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Span, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// A provider whose requests say, in the place of the model's name, `RUN/TASK`.
pub(super) struct Signed(pub(super) Arc<dyn Provider>);

#[async_trait]
impl Provider for Signed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn ready(&self) -> Result<(), ProviderError> {
        self.0.ready()
    }

    async fn complete(&self, request: &ModelRequest) -> Result<ModelReply, ProviderError> {
        self.0.complete(&signed(request)).await
    }

    async fn stream(
        &self,
        request: &ModelRequest,
        deltas: &DeltaSender,
    ) -> Result<ModelReply, ProviderError> {
        self.0.stream(&signed(request), deltas).await
    }
}

fn signed(request: &ModelRequest) -> ModelRequest {
    let mut whose = Whose::default();
    Span::current().with_subscriber(|(id, subscriber)| {
        let registry = subscriber.downcast_ref::<Registry>().unwrap();
        for span in registry.span(id).unwrap().scope() {
            if let Some(found) = span.extensions().get::<Whose>() {
                whose.run = whose.run.take().or(found.run.clone());
                // The innermost task is the one that asks.
                whose.task = whose.task.take().or(found.task.clone());
            }
        }
    });
    let model = format!("{}/{}", whose.run.unwrap(), whose.task.unwrap());
    ModelRequest { model: model.as_str().into(), ..request.clone() }
}

/// What a span says of whom it is about.
#[derive(Default)]
struct Whose {
    run: Option<String>,
    task: Option<String>,
}

impl Visit for Whose {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "exile.run.id" => self.run = Some(value.to_owned()),
            "exile.task.path" => self.task = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// Keeps of every span whom it is about.
pub(super) struct Callers;

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Callers {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut whose = Whose::default();
        attributes.record(&mut whose);
        if whose.run.is_some() || whose.task.is_some() {
            context.span(id).unwrap().extensions_mut().insert(whose);
        }
    }
}
