//! A process that dies at any append: the next one goes on to the same end, and no finished call
//! is made again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

