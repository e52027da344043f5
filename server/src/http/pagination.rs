//! Lists: `{items, next}` with an opaque cursor.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::store;

/// Items of a page if nothing is said.
const USUAL: u32 = 50;
/// Items of a page at most.
const MOST: u32 = 200;

/// Which part of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before.
    pub after: Option<String>,
    /// Items, 1 to 200; 50 if nothing is said.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<u32>,
}

impl PageQuery {
    /// What the store is asked.
    #[must_use]
    pub fn page(self) -> store::Page {
        page(self.after, self.limit)
    }
}

/// What the store is asked, from the two parameters of every list.
#[must_use]
pub fn page(after: Option<String>, limit: Option<u32>) -> store::Page {
    store::Page { after, limit: limit.unwrap_or(USUAL).clamp(1, MOST) }
}

/// One page.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last one.
    pub next: Option<String>,
}

impl<T> List<T> {
    /// A list that has one page.
    #[must_use]
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }

    /// A page of rows as views.
    pub fn of<R: Into<T>>(listed: store::Listed<R>) -> Self {
        Self { items: listed.items.into_iter().map(Into::into).collect(), next: listed.next }
    }
}
