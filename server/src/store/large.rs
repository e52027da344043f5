//! Large values inside records: each is kept once, as a blob, and put back when it is read.
//!
//! A string, list or object of at least [`LARGE`] bytes is replaced by `{"$blob": ADDRESS}`, from
//! the inside out, so that the same text in two places is one blob. Keys that look like the mark
//! get one more `$`, so that no value of a user is taken for one.
//!
//! Invariants: `put_back(take_out(v)) = v`; equal values have one address; a record that has no
//! such value is stored as it is.

use std::collections::HashMap;

use exile_engine::journal::BlobId;
use exile_engine::run::record::Record;
use serde_json::{Map, Value};

use super::{StoreError, column};

/// From how many bytes of JSON on a value is kept by itself.
const LARGE: usize = 16 * 1024;

/// The key of the object that stands for a large value.
const MARK: &str = "$blob";

/// A record as it is stored.
pub(super) struct Packed {
    pub(super) body: String,
    pub(super) blobs: Vec<(BlobId, Vec<u8>)>,
}

/// Writes a record down, its large values apart.
pub(super) fn pack(record: &Record) -> Result<Packed, StoreError> {
    let body = column::json(record)?;
    if body.len() < LARGE && !marked(&body) {
        return Ok(Packed { body, blobs: Vec::new() });
    }
    let value = serde_json::to_value(record).map_err(|e| StoreError::unreadable("record", e))?;
    let mut blobs = Vec::new();
    let (value, _) = inside(value, &mut blobs)?;
    Ok(Packed { body: column::json(&value)?, blobs })
}

/// Whether a body may hold marks; if not, it is the record as it is.
pub(super) fn marked(body: &str) -> bool {
    body.contains(MARK)
}

/// The value without its large parts, or what stands for it if it is large itself; and how many
/// bytes that takes.
fn take_out(
    value: Value,
    blobs: &mut Vec<(BlobId, Vec<u8>)>,
) -> Result<(Value, usize), StoreError> {
    let (value, bytes) = inside(value, blobs)?;
    if bytes < LARGE {
        return Ok((value, bytes));
    }
    let content = column::json(&value)?.into_bytes();
    let id = BlobId::of(&content);
    let mark = Value::Object(Map::from_iter([(MARK.to_owned(), Value::from(&*id.0))]));
    let bytes = MARK.len() + id.0.len() + 7;
    blobs.push((id, content));
    Ok((mark, bytes))
}

/// The value with the large parts inside it taken out.
fn inside(value: Value, blobs: &mut Vec<(BlobId, Vec<u8>)>) -> Result<(Value, usize), StoreError> {
    Ok(match value {
        Value::Array(items) => {
            let mut bytes = 2 + items.len().saturating_sub(1);
            let mut packed = Vec::with_capacity(items.len());
            for item in items {
                let (item, more) = take_out(item, blobs)?;
                bytes += more;
                packed.push(item);
            }
            (Value::Array(packed), bytes)
        }
        Value::Object(fields) => {
            let mut bytes = 2 + fields.len().saturating_sub(1);
            let mut packed = Map::with_capacity(fields.len());
            for (key, field) in fields {
                let key = if like_mark(&key) { format!("${key}") } else { key };
                let (field, more) = take_out(field, blobs)?;
                bytes += column::json(&key)?.len() + 1 + more;
                packed.insert(key, field);
            }
            (Value::Object(packed), bytes)
        }
        leaf => {
            let bytes = column::json(&leaf)?.len();
            (leaf, bytes)
        }
    })
}

/// `$blob` with any number of `$`.
fn like_mark(key: &str) -> bool {
    key.ends_with(MARK) && key.trim_start_matches('$').len() == MARK.len() - 1
}

/// The address that a value stands for.
fn address(value: &Value) -> Option<&str> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.get(MARK)?.as_str()
}

/// Adds the addresses that a value needs to be whole, those inside blobs not included.
pub(super) fn addresses(value: &Value, found: &mut Vec<String>) {
    if let Some(address) = address(value) {
        found.push(address.to_owned());
        return;
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| addresses(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| addresses(field, found)),
        _ => {}
    }
}

/// The value made whole; `blobs` holds every blob that it needs.
pub(super) fn put_back(value: Value, blobs: &HashMap<String, Value>) -> Result<Value, StoreError> {
    if let Some(address) = address(&value) {
        let blob = blobs.get(address);
        let blob = blob.ok_or_else(|| StoreError::unreadable("a large value", "it is missing"))?;
        return whole(blob.clone(), blobs);
    }
    whole(value, blobs)
}

/// Makes whole what is inside a value that is no mark itself.
fn whole(value: Value, blobs: &HashMap<String, Value>) -> Result<Value, StoreError> {
    match value {
        Value::Array(items) => items.into_iter().map(|item| put_back(item, blobs)).collect(),
        Value::Object(fields) => {
            let mut unpacked = Map::with_capacity(fields.len());
            for (key, field) in fields {
                let key = if like_mark(&key) { key[1..].to_owned() } else { key };
                unpacked.insert(key, put_back(field, blobs)?);
            }
            Ok(Value::Object(unpacked))
        }
        leaf => Ok(leaf),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::{LARGE, addresses, inside, put_back};

    /// Takes a value's large parts out and puts them back.
    fn round(value: &Value) -> (Value, HashMap<String, Value>, Value) {
        let mut blobs = Vec::new();
        let (packed, bytes) = inside(value.clone(), &mut blobs).unwrap();
        assert_eq!(bytes, packed.to_string().len());
        let parsed = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap();
        let blobs: HashMap<_, _> =
            blobs.iter().map(|(id, bytes)| (id.0.to_string(), parsed(bytes))).collect();
        let back = super::whole(packed.clone(), &blobs).unwrap();
        (packed, blobs, back)
    }

    #[test]
    fn equal_values_share_a_blob_wherever_they_stand() {
        let text = "x".repeat(LARGE);
        let value = json!({ "a": text, "b": [1, { "c": text }], "d": "small" });
        let (packed, blobs, back) = round(&value);
        assert_eq!(blobs.len(), 1);
        assert!(packed.to_string().len() < 300);
        assert_eq!(back, value);
    }

    #[test]
    fn a_large_list_of_large_things_is_blobs_inside_a_blob() {
        let items: Vec<Value> = (0..300).map(|n| json!(format!("{n}").repeat(9_000))).collect();
        let value = json!({ "all": items });
        let (packed, blobs, back) = round(&value);
        // Numbers of one digit are too short.
        assert_eq!(blobs.len(), 290 + 1);
        let mut needed = Vec::new();
        addresses(&packed, &mut needed);
        assert_eq!((needed.len(), back), (1, value));
    }

    #[test]
    fn a_value_just_below_the_limit_stays() {
        for (spare, kept_apart) in [(3, false), (2, true)] {
            let (_, blobs, _) = round(&json!(["x".repeat(LARGE - spare)]));
            assert_eq!(!blobs.is_empty(), kept_apart, "{spare}");
        }
    }

    #[test]
    fn what_looks_like_a_mark_is_none() {
        for value in [json!({ "$blob": "sha256:00" }), json!({ "$$blob": 1, "$blob": [null] })] {
            let whole = json!([value, "x".repeat(LARGE)]);
            assert_eq!(round(&whole).2, whole);
        }
    }

    #[test]
    fn a_missing_blob_is_told() {
        let error = put_back(json!({ "$blob": "sha256:00" }), &HashMap::new()).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            (0..3_u8, 4_000..20_000_usize).prop_map(|(c, n)| Value::from(c.to_string().repeat(n))),
        ];
        let key = prop_oneof![Just("$blob".to_owned()), Just("$$blob".to_owned()), "[a-c$]{1,3}"];
        leaf.prop_recursive(4, 24, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|fields| Value::Object(Map::from_iter(fields))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_value_comes_back(value in values()) {
            prop_assert_eq!(round(&value).2, value);
        }
    }
}
