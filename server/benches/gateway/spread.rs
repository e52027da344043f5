//! Percentiles of many times.

use std::time::Duration;

use serde_json::{Value, json};

/// Many times, in order.
pub struct Spread(Vec<Duration>);

impl Spread {
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that so many percent do not exceed, in milliseconds; none of nothing.
    pub fn percentile(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().map(milliseconds)
    }

    /// Median, 99th percentile and maximum.
    pub fn told(&self) -> Value {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        json!({ "count": self.count(), "p50": p50, "p99": p99, "max": max })
    }

    /// By how much the same percentiles of `self` exceed those of `other`.
    pub fn above(&self, other: &Self) -> Value {
        let added = |p| Some(rounded(self.percentile(p)? - other.percentile(p)?));
        json!({ "p50": added(50), "p99": added(99) })
    }
}

fn milliseconds(time: Duration) -> f64 {
    rounded(time.as_secs_f64() * 1e3)
}

/// To the tenth of a microsecond.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e4).round() / 1e4
}
