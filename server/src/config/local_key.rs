//! The key of a home (`local.key`), which the command line uses by itself.
//!
//! Invariants:
//! - While a server holds the home, the key in the file is an administrator's and works: when it is
//!   revoked, or its user is removed, disabled or degraded, another one takes its place.
//! - Nobody is sent the key who has not proved before that it is theirs: [`proof`] shows over the
//!   address that is asked that whoever answers there has read the file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exile_engine::id::UserId;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::config::home::{Home, HomeError};
use crate::store::{Role, Store, StoreError, User};

/// Whom the key of a new home belongs to.
const ADMIN: &str = "admin";

/// Longest challenge, in bytes.
const NONCE: usize = 64;

/// What a proof is about, so that no other text is ever proved by the same key.
const PURPOSE: &str = "exile holds this home";

/// The key of a home that this process holds.
#[derive(Clone, Debug)]
pub struct LocalKey {
    home: Home,
}

/// Why a home has no key.
#[derive(Debug, thiserror::Error)]
pub enum LocalKeyError {
    /// The file.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The rows.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LocalKey {
    /// Of a home that this process holds.
    #[must_use]
    pub fn of(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Makes sure that the key in the file is an administrator's and works, and says whose it is.
    pub async fn ensure(&self, store: &Store) -> Result<UserId, LocalKeyError> {
        if let Some(key) = self.home.local_key()?
            && let Some(owner) = store.key_owner(key.expose()).await?
            && owner.role == Role::Admin
        {
            return Ok(owner.user.id);
        }
        let user = match store.user_by_name(ADMIN).await?.filter(User::administers) {
            Some(user) => user,
            // Nobody who was removed or disabled comes back: another administrator is always there.
            None => match store.first_admin().await? {
                Some(user) => user,
                None => store.create_user(ADMIN, Role::Admin).await?,
            },
        };
        let (_, secret) = store.create_key(&user.id, "local.key", &[], None).await?;
        self.home.store_local_key(&Secret::new(secret))?;
        Ok(user.id)
    }

    /// Proves to whoever has the key that this process has it too.
    pub fn prove(&self, nonce: &str, url: &str) -> Result<Option<String>, HomeError> {
        Ok(self.home.local_key()?.map(|key| proof(&key, nonce, url)))
    }
}

/// What the holder of `key` that listens at `url` answers to the challenge `nonce`.
#[must_use]
#[allow(clippy::expect_used, clippy::missing_panics_doc, reason = "HMAC takes keys of any length")]
pub fn proof(key: &Secret, nonce: &str, url: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes());
    let mut mac = mac.expect("HMAC takes keys of any length");
    mac.update(format!("{PURPOSE}\n{url}\n{nonce}").as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

/// Whether `answer` is the proof that was asked for, in a time that does not depend on where it
/// differs.
#[must_use]
pub fn proves(answer: &str, key: &Secret, nonce: &str, url: &str) -> bool {
    proof(key, nonce, url).as_bytes().ct_eq(answer.as_bytes()).into()
}

/// Whether a challenge can be answered: 16 to 64 letters, digits, `-` and `_`.
#[must_use]
pub fn is_nonce(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (16..=NONCE).contains(&text.len()) && text.bytes().all(plain)
}
