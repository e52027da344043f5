//! Which business a request belongs to.
//!
//! A business that a quota or an alias of `exile.yaml` names is worth something: its quota is spent
//! and its models answer. It belongs to the users and keys that an administrator has bound to it.
//! Any other name is a label for the usage, free to be chosen.
//!
//! Invariants:
//! - Who is bound to businesses stays within them: a request that names none belongs to the first of
//!   them, so that no quota is escaped by silence. What a key is bound to goes before what its user is.
//! - Who is bound to none names no business that something hangs on. With a quota of `*` something
//!   hangs on every name, so that nobody makes up counters without end.
//! - Administrators who are bound to none may name any.

use super::{Requester, Runs, RunsError};
use crate::usage::Kind;

/// Longest name of a business, in characters.
const LONGEST: usize = 128;

impl Runs<'_> {
    /// The business that a request belongs to which names this one, or none.
    ///
    /// # Errors
    /// It is not the caller's to name, or no name.
    pub fn business(
        self,
        by: &Requester<'_>,
        named: Option<String>,
    ) -> Result<Option<String>, RunsError> {
        let bound = by.businesses;
        let Some(name) = named else { return Ok(bound.first().cloned()) };
        check_name("business", &name)?;
        let may = match bound {
            [] => by.is_admin || !self.is_worth_something(&name),
            bound => bound.contains(&name),
        };
        if may { Ok(Some(name)) } else { Err(RunsError::Business { name, known: bound.to_vec() }) }
    }

    /// Whether a quota or a model hangs on a business.
    fn is_worth_something(self, name: &str) -> bool {
        let quotas = self.usage.quotas();
        let quotas = quotas.of(Kind::Business);
        let mut aliases = self.catalog.models.aliases().values();
        quotas.contains_key(name)
            || quotas.contains_key("*")
            || aliases.any(|alias| alias.business.contains_key(name))
    }
}

/// Checks the name of a business, which stands in `field` of a request.
///
/// # Errors
/// [`RunsError::Field`]: it is no name.
pub fn check_name(field: &str, name: &str) -> Result<(), RunsError> {
    if (1..=LONGEST).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    let what =
        format!("{field}: a name has 1 to {LONGEST} characters, none of them a control character");
    Err(RunsError::Field { field: field.to_owned(), what })
}
