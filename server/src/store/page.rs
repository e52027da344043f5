//! Lists in pages. A cursor is opaque text to callers; inside it is the last row's `seq`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::StoreError;

/// Most items that one page holds.
pub(super) const LIMIT: u32 = 200;

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the page before; `None` for the first page.
    pub after: Option<String>,
    /// How many items; at least 1 and at most 200 are given.
    pub limit: u32,
}

impl Default for Page {
    /// The first 50.
    fn default() -> Self {
        Self { after: None, limit: 50 }
    }
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Cursor of the next page; `None` on the last one.
    pub next: Option<String>,
}

impl Page {
    /// The `seq` after which the page begins.
    pub(super) fn after(&self) -> Result<Option<i64>, StoreError> {
        let decode = |text: &String| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StoreError::Cursor)?;
            let bytes = bytes.try_into().map_err(|_| StoreError::Cursor)?;
            Ok(i64::from_be_bytes(bytes))
        };
        self.after.as_ref().map(decode).transpose()
    }

    /// Rows to ask for: one more than are given, to know whether there is a next page.
    pub(super) fn rows(&self) -> u32 {
        self.limit.clamp(1, LIMIT) + 1
    }

    /// The same page, if it is to hold at most so many bytes: `sizes` are those of the rows that
    /// there are, at most [`rows`](Self::rows). One item is given whatever its size.
    pub(super) fn within(self, bytes: usize, sizes: &[i64]) -> Self {
        let mut left = i64::try_from(bytes).unwrap_or(i64::MAX);
        let fits = |size: &&i64| {
            left = left.saturating_sub(**size);
            left >= 0
        };
        let fitting = sizes.iter().take_while(fits).count().max(1);
        let limit = u32::try_from(fitting).unwrap_or(u32::MAX).min(self.limit.clamp(1, LIMIT));
        Self { limit, ..self }
    }

    /// Makes a page of `rows` (`seq` and item), of which there are at most [`rows`](Self::rows).
    pub(super) fn list<T>(self, rows: Vec<(i64, T)>) -> Listed<T> {
        let limit = self.limit.clamp(1, LIMIT) as usize;
        let more = rows.len() > limit;
        let next = rows.get(limit - 1).filter(|_| more).map(|(seq, _)| cursor(*seq));
        let items = rows.into_iter().take(limit).map(|(_, item)| item).collect();
        Listed { items, next }
    }
}

fn cursor(seq: i64) -> String {
    URL_SAFE_NO_PAD.encode(seq.to_be_bytes())
}
