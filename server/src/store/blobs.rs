//! Large values inside records: each is kept once, as a blob, and put back when it is read.
//!
//! A string, list or object of at least [`LARGE`] bytes is replaced by `{"$blob": ADDRESS}`, from
//! the inside out, so that the same text in two places is one blob. Of a large list, runs of items
//! are replaced by `{"$part": ADDRESS}` each, from its beginning on, so that a list that only
//! grows shares all but its tail with what it was before. Keys that look like one of the two get
//! one more `$`, so that no value of a user is taken for one.
//!
//! Invariants: what is taken out is put back as it was; equal values have one address; a record
//! that has no such value is stored as it is.

use std::collections::HashMap;

use exile_engine::journal::BlobId;
use exile_engine::run::record::Record;
use serde_json::{Map, Value};

use super::{StoreError, codec};

/// From how many bytes of JSON on a value is kept by itself.
const LARGE: usize = 16 * 1024;

/// From how many bytes of JSON on a run of items of a large list is kept by itself.
const PART: usize = 4 * 1024;

/// The key of the object that stands for a large value.
const BLOB: &str = "$blob";

/// The key of the object that stands for a run of items.
const RUN: &str = "$part";

/// What is kept by itself.
type Blobs = Vec<(BlobId, Vec<u8>)>;

/// A record as it is stored.
pub(super) struct Packed {
    pub(super) body: String,
    pub(super) blobs: Blobs,
}

/// Writes a record down, its large values apart.
pub(super) fn pack(record: &Record) -> Result<Packed, StoreError> {
    let body = codec::json(record)?;
    if body.len() < LARGE && !marked(&body) {
        return Ok(Packed { body, blobs: Vec::new() });
    }
    let value = serde_json::to_value(record).map_err(|e| StoreError::unreadable("record", e))?;
    let mut blobs = Vec::new();
    let (value, _) = inside(value, &mut blobs)?;
    Ok(Packed { body: codec::json(&value)?, blobs })
}

/// Whether a body may hold marks; if not, it is the record as it is.
pub(super) fn marked(body: &str) -> bool {
    body.contains(BLOB) || body.contains(RUN)
}

/// The value without its large parts, or what stands for it if it is large itself; and how many
/// bytes that takes.
fn take_out(value: Value, blobs: &mut Blobs) -> Result<(Value, usize), StoreError> {
    let (value, bytes) = inside(value, blobs)?;
    if bytes < LARGE { Ok((value, bytes)) } else { stand_in(BLOB, &value, blobs) }
}

/// Keeps a value by itself; gives what stands for it, and how many bytes that takes.
fn stand_in(key: &str, value: &Value, blobs: &mut Blobs) -> Result<(Value, usize), StoreError> {
    let content = codec::json(value)?.into_bytes();
    let id = BlobId::of(&content);
    let mark = Value::Object(Map::from_iter([(key.to_owned(), Value::from(&*id.0))]));
    let bytes = key.len() + id.0.len() + 7;
    blobs.push((id, content));
    Ok((mark, bytes))
}

/// The value with the large parts inside it taken out.
fn inside(value: Value, blobs: &mut Blobs) -> Result<(Value, usize), StoreError> {
    Ok(match value {
        Value::Array(items) => {
            let items: Vec<_> =
                items.into_iter().map(|item| take_out(item, blobs)).collect::<Result<_, _>>()?;
            let items = if listed(&items) < LARGE { items } else { in_runs(items, blobs)? };
            let bytes = listed(&items);
            (items.into_iter().map(|(item, _)| item).collect(), bytes)
        }
        Value::Object(fields) => {
            let mut bytes = 2 + fields.len().saturating_sub(1);
            let mut packed = Map::with_capacity(fields.len());
            for (key, field) in fields {
                let key = if like_mark(&key) { format!("${key}") } else { key };
                let (field, more) = take_out(field, blobs)?;
                bytes += codec::json(&key)?.len() + 1 + more;
                packed.insert(key, field);
            }
            (Value::Object(packed), bytes)
        }
        leaf => {
            let bytes = codec::json(&leaf)?.len();
            (leaf, bytes)
        }
    })
}

/// How many bytes a list of these items takes.
fn listed(items: &[(Value, usize)]) -> usize {
    2 + items.len().saturating_sub(1) + items.iter().map(|(_, bytes)| bytes).sum::<usize>()
}

/// Items of a large list, run by run kept by themselves, and the tail.
fn in_runs(
    items: Vec<(Value, usize)>,
    blobs: &mut Blobs,
) -> Result<Vec<(Value, usize)>, StoreError> {
    let (mut runs, mut run) = (Vec::new(), Vec::new());
    for item in items {
        run.push(item);
        if listed(&run) >= PART {
            let whole = run.drain(..).map(|(item, _)| item).collect();
            runs.push(stand_in(RUN, &whole, blobs)?);
        }
    }
    runs.append(&mut run);
    Ok(runs)
}

/// `$blob` or `$part`, with any number of `$`.
fn like_mark(key: &str) -> bool {
    let name = key.trim_start_matches('$');
    name.len() < key.len() && [BLOB, RUN].iter().any(|mark| mark[1..] == *name)
}

/// The address under `key`, if that is all that the value holds.
fn address<'v>(key: &str, value: &'v Value) -> Option<&'v str> {
    let fields = value.as_object().filter(|fields| fields.len() == 1)?;
    fields.get(key)?.as_str()
}

/// Adds the addresses that a value needs to be whole, those inside blobs not included.
pub(super) fn addresses(value: &Value, found: &mut Vec<String>) {
    if let Some(address) = address(BLOB, value).or_else(|| address(RUN, value)) {
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
    if let Some(address) = address(BLOB, &value) {
        return whole(blob(address, blobs)?, blobs);
    }
    whole(value, blobs)
}

fn blob(address: &str, blobs: &HashMap<String, Value>) -> Result<Value, StoreError> {
    let blob = blobs.get(address).cloned();
    blob.ok_or_else(|| StoreError::unreadable("a large value", "it is missing"))
}

/// Makes whole what is inside a value that is no mark itself.
fn whole(value: Value, blobs: &HashMap<String, Value>) -> Result<Value, StoreError> {
    match value {
        Value::Array(items) => {
            let mut unpacked = Vec::with_capacity(items.len());
            for item in items {
                match address(RUN, &item) {
                    Some(address) => match whole(blob(address, blobs)?, blobs)? {
                        Value::Array(run) => unpacked.extend(run),
                        other => unpacked.push(other),
                    },
                    None => unpacked.push(put_back(item, blobs)?),
                }
            }
            Ok(Value::Array(unpacked))
        }
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
    fn a_large_list_of_large_things_is_blobs_inside_runs() {
        let items: Vec<Value> = (0..300).map(|n| json!(format!("{n}").repeat(9_000))).collect();
        let value = json!({ "all": items });
        let (packed, blobs, back) = round(&value);
        assert_eq!(back, value);
        let mut needed = Vec::new();
        addresses(&packed, &mut needed);
        // Numbers of one digit are too short to stand alone.
        assert!(needed.len() < 100 && blobs.len() > 290, "{} of {}", needed.len(), blobs.len());
    }

    #[test]
    fn a_list_that_only_grows_shares_all_but_its_tail() {
        let ids = |n: usize| (0..n).map(|n| json!(format!("msg_{n:032}"))).collect::<Vec<_>>();
        let (_, before, _) = round(&json!({ "all": ids(1_000) }));
        let longer = json!({ "all": ids(1_200) });
        let (packed, after, back) = round(&longer);
        assert_eq!(back, longer);
        let new = after.keys().filter(|id| !before.contains_key(*id)).count();
        assert!(new <= 2 && packed.to_string().len() < 8_000, "{new} of {}", after.len());
    }

    #[test]
    fn a_value_just_below_the_limit_stays() {
        for (spare, kept_apart) in [(3, false), (2, true)] {
            let (_, blobs, _) = round(&json!({ "k": "x".repeat(LARGE - spare) }));
            assert_eq!(!blobs.is_empty(), kept_apart, "{spare}");
        }
    }

    #[test]
    fn what_looks_like_a_mark_is_none() {
        for value in [
            json!({ "$blob": "sha256:00" }),
            json!([{ "$part": "sha256:00" }]),
            json!({ "$$blob": 1, "$blob": [null], "$$part": {} }),
        ] {
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
        let mark = |text: &str| Just(text.to_owned());
        let key = prop_oneof![mark("$blob"), mark("$$blob"), mark("$part"), "[a-c$]{1,3}"];
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
