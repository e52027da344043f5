//! Bounds of requests and connections.

use std::time::Duration;

use exile_engine::period::Period;
use exile_engine::size::Size;

use super::LimitsFile;

/// The least that the HTTP library reads at once, in bytes.
const HEAD_LEAST: usize = 8 * 1024;

/// Bounds of requests and connections, each under its name below `limits` in `exile.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportLimits {
    /// `body`: bytes of a body that may hold documents or pictures.
    pub body: usize,
    /// `small_body`: bytes of every other body.
    pub small_body: usize,
    /// `bodies`: bytes of large bodies that are held at once.
    pub bodies: usize,
    /// `body_wait`: how long a request waits for room among them.
    pub body_wait: Duration,
    /// `body_timeout`: how long a body may take to arrive.
    pub body_timeout: Duration,
    /// `refused_body`: bytes of a refused body that are read and thrown away.
    pub refused_body: usize,
    /// `head`: bytes of a request line and its fields.
    pub head: usize,
    /// `header_timeout`: how long a connection may take to send a head.
    pub header_timeout: Duration,
    /// `idle_timeout`: how long a connection may rest between two requests.
    pub idle_timeout: Duration,
    /// `write_timeout`: how long a reader may take nothing of its answer.
    pub write_timeout: Duration,
    /// `connections`: at once.
    pub connections: usize,
    /// `connections_per_address`: at once; `None`: four fifths of all.
    pub connections_per_address: Option<usize>,
    /// `http2_streams`: of one connection, unencrypted; 0: no HTTP/2.
    pub http2_streams: u32,
    /// `shutdown`: how long what is in flight may go on once the server stops.
    pub shutdown: Duration,
    /// `ready_wait`: how long `/readyz` waits for the database.
    pub ready_wait: Duration,
}

impl Default for TransportLimits {
    fn default() -> Self {
        Self {
            body: 32 << 20,
            small_body: 1 << 20,
            bodies: 128 << 20,
            body_wait: Duration::from_secs(10),
            body_timeout: Duration::from_mins(1),
            refused_body: 64 << 20,
            head: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_mins(1),
            connections: 10_000,
            connections_per_address: None,
            http2_streams: 0,
            shutdown: Duration::from_secs(5),
            ready_wait: Duration::from_secs(1),
        }
    }
}

impl TransportLimits {
    /// What is written, else the default.
    pub(super) fn of(file: &LimitsFile) -> Self {
        let usual = Self::default();
        let bytes = |written: Option<Size>, usual| written.map_or(usual, |Size(bytes)| bytes);
        let time = |written: Option<Period>, usual| written.map_or(usual, |Period(time)| time);
        let count =
            |written: Option<u32>| written.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        Self {
            body: bytes(file.body, usual.body),
            small_body: bytes(file.small_body, usual.small_body),
            bodies: bytes(file.bodies, usual.bodies),
            body_wait: time(file.body_wait, usual.body_wait),
            body_timeout: time(file.body_timeout, usual.body_timeout),
            refused_body: bytes(file.refused_body, usual.refused_body),
            head: bytes(file.head, usual.head).max(HEAD_LEAST),
            header_timeout: time(file.header_timeout, usual.header_timeout),
            idle_timeout: time(file.idle_timeout, usual.idle_timeout),
            write_timeout: time(file.write_timeout, usual.write_timeout),
            connections: count(file.connections).unwrap_or(usual.connections),
            connections_per_address: count(file.connections_per_address),
            http2_streams: file.http2_streams.unwrap_or(usual.http2_streams),
            shutdown: time(file.shutdown, usual.shutdown),
            ready_wait: time(file.ready_wait, usual.ready_wait),
        }
    }
}
