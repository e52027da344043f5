//! What all requests share of this machine.

use tokio_util::sync::CancellationToken;

use crate::config::TransportLimits;
use crate::http::admission::Admission;
use crate::http::readiness::Readiness;

/// What all requests share.
#[derive(Debug)]
pub struct Transport {
    /// Room for bodies.
    pub admission: Admission,
    /// Cancelled once no run goes on in this process: who reads runs' events comes back to the next
    /// one.
    pub readers: CancellationToken,
    /// Whether the server can do its work.
    pub readiness: Readiness,
}

impl Transport {
    /// Everything unused.
    #[must_use]
    pub fn new(limits: &TransportLimits) -> Self {
        let (readers, readiness) = Default::default();
        Self { admission: Admission::new(limits), readers, readiness }
    }
}
