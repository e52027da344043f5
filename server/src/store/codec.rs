//! How values stand in columns: times as milliseconds, numbers as 64-bit integers, the rest as
//! JSON text. What cannot be read names its column.

use exile_engine::run::record::Number;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::StoreError;

pub(super) fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp, StoreError> {
    to_time(row.try_get(column)?, column)
}

pub(super) fn maybe_time(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<Timestamp>, StoreError> {
    let millis: Option<i64> = row.try_get(column)?;
    millis.map(|millis| to_time(millis, column)).transpose()
}

fn to_time(millis: i64, column: &str) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(millis).map_err(|e| StoreError::unreadable(column, e))
}

/// An unsigned number as SQLite takes it.
pub(super) fn integer(number: Number) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|e| StoreError::unreadable("number", e))
}

pub(super) fn number(row: &SqliteRow, column: &'static str) -> Result<Number, StoreError> {
    to_number(row.try_get(column)?, column)
}

pub(super) fn maybe_number(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<Number>, StoreError> {
    let integer: Option<i64> = row.try_get(column)?;
    integer.map(|integer| to_number(integer, column)).transpose()
}

fn to_number(integer: i64, column: &str) -> Result<Number, StoreError> {
    Number::try_from(integer).map_err(|e| StoreError::unreadable(column, e))
}

pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::unreadable("JSON", e))
}

pub(super) fn parsed<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    parse(row.try_get(column)?, column)
}

pub(super) fn maybe_parsed<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| parse(text, column)).transpose()
}

fn parse<T: DeserializeOwned>(text: &str, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::unreadable(column, e))
}
