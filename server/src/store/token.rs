//! Tokens that prove something to us: keys, sign-in links, sessions.
//!
//! Invariants:
//! - A token holds 256 bits of randomness, so one SHA-256 of it is enough to store: there is
//!   nothing to guess that a slow hash would protect.
//! - The token itself is given out once and written nowhere.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exile_engine::env::Env;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What is stored of a token.
pub(super) type Digest = Vec<u8>;

/// Makes a token: `prefix` and 43 characters.
pub(super) fn token(prefix: &str, env: &dyn Env) -> String {
    let mut random = [0; 32];
    env.fill(&mut random);
    let mut token = prefix.to_owned();
    URL_SAFE_NO_PAD.encode_string(random, &mut token);
    token
}

/// What is stored of `token`.
pub(super) fn digest(token: &str) -> Digest {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Compares in a time that does not depend on where two digests differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
