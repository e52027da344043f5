//! A collector in this process: takes OTLP over HTTP (protobuf) and keeps the spans.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value as Any};
use prost::Message as _;

/// One export.
pub(crate) struct Export {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
}

/// The collector; its thread ends with the test process.
pub(crate) struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) url: String,
    exports: Receiver<Export>,
}

/// A span as the tests compare it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: Vec<u8>,
    pub(crate) parent: Vec<u8>,
    pub(crate) trace: Vec<u8>,
    pub(crate) name: String,
    /// 1 internal, 2 server, 3 client.
    pub(crate) kind: i32,
    /// 2: error.
    pub(crate) status: i32,
    /// `name=value`, sorted.
    pub(crate) attributes: Vec<String>,
}

impl Seen {
    /// The value of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|a| a.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, exports) = channel();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let sender = sender.clone();
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while take(&mut stream, &sender).is_some() {}
                });
            }
        });
        Self { url, exports }
    }

    /// Everything that has arrived. To be asked once the exporting process has ended: it sends
    /// what is left before.
    pub(crate) fn exports(&self) -> Vec<Export> {
        self.exports.try_iter().collect()
    }
}

/// Takes one request of a connection. It is kept before it is answered: whoever sent it may end
/// then, and is what the tests wait for.
fn take(stream: &mut BufReader<TcpStream>, keep: &Sender<Export>) -> Option<()> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut length = 0;
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).ok()?;
        let field = field.trim().to_ascii_lowercase();
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if field.is_empty() {
            break;
        }
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).ok()?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    keep.send(Export { path, bytes }).ok()?;
    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

/// The spans of exports, with the schema and name that their resources declare.
pub(crate) fn spans(exports: &[Export]) -> (Vec<Seen>, Vec<(String, String)>) {
    let (mut spans, mut resources) = (Vec::new(), Vec::new());
    for export in exports {
        let request = ExportTraceServiceRequest::decode(&*export.bytes).unwrap();
        for group in request.resource_spans {
            let resource = group.resource.unwrap_or_default();
            let name = resource.attributes.iter().find(|a| a.key == "service.name");
            let name = name.map(|a| text(a.value.as_ref())).unwrap_or_default();
            resources.push((name, group.schema_url));
            spans.extend(group.scope_spans.into_iter().flat_map(|s| s.spans).map(|span| {
                let pair = |a: &opentelemetry_proto::tonic::common::v1::KeyValue| {
                    format!("{}={}", a.key, text(a.value.as_ref()))
                };
                let mut attributes: Vec<String> = span.attributes.iter().map(pair).collect();
                attributes.sort();
                Seen {
                    id: span.span_id,
                    parent: span.parent_span_id,
                    trace: span.trace_id,
                    name: span.name,
                    kind: span.kind,
                    status: span.status.map_or(0, |s| s.code),
                    attributes,
                }
            }));
        }
    }
    (spans, resources)
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|v| v.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(n)) => format!("int {n}"),
        Some(Any::DoubleValue(n)) => format!("{n:?}"),
        Some(Any::BoolValue(b)) => b.to_string(),
        Some(Any::ArrayValue(list)) => {
            let items: Vec<String> = list.values.iter().map(|v| text(Some(v))).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("{other:?}"),
    }
}
