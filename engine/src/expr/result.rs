//! From the language's values to JSON. Integers stay integers; what JSON cannot hold is an error.

use minijinja::value::{Kwargs, ValueKind};
use serde_json::{Map, Number, Value};

use super::RESULT_LIMIT;
use super::view::View;

/// The JSON of a result. What comes from the state is copied as it is; what was made anew counts
/// against [`RESULT_LIMIT`].
pub(super) fn to_json(value: &minijinja::Value) -> Result<Value, String> {
    let mut room = RESULT_LIMIT;
    convert(value, &mut room)
}

fn convert(value: &minijinja::Value, room: &mut usize) -> Result<Value, String> {
    if let Some(view) = value.downcast_object_ref::<View>() {
        return Ok(view.get().clone());
    }
    take(room, size_of::<u64>())?;
    Ok(match value.kind() {
        ValueKind::None => Value::Null,
        ValueKind::Bool => Value::Bool(value.is_true()),
        ValueKind::Number => Value::Number(number(value)?),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            take(room, text.len())?;
            Value::String(text.to_owned())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| error.to_string())?;
            Value::Array(items.map(|item| convert(&item, room)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                let key = key.to_string();
                take(room, key.len())?;
                map.insert(key, convert(&item, room)?);
            }
            Value::Object(map)
        }
        ValueKind::Undefined => return Err("is undefined".to_owned()),
        kind => return Err(format!("gave a {kind}, which is no JSON value")),
    })
}

fn take(room: &mut usize, bytes: usize) -> Result<(), String> {
    *room = room
        .checked_sub(bytes)
        .ok_or_else(|| format!("gave more than the {RESULT_LIMIT} bytes allowed"))?;
    Ok(())
}

fn number(value: &minijinja::Value) -> Result<Number, String> {
    if value.is_integer() {
        let signed = i64::try_from(value.clone()).ok().map(Number::from);
        return signed
            .or_else(|| u64::try_from(value.clone()).ok().map(Number::from))
            .ok_or_else(|| format!("gave {value}, which does not fit into 64 bits"));
    }
    let float = f64::try_from(value.clone()).map_err(|error| error.to_string())?;
    Number::from_f64(float).ok_or_else(|| format!("gave {value}, which is no JSON number"))
}

/// The filter `tojson`: JSON text, indented if `indent` says by how many spaces.
#[allow(clippy::needless_pass_by_value, reason = "the library hands options over")]
pub(super) fn to_json_text(
    value: &minijinja::Value,
    options: Kwargs,
) -> Result<String, minijinja::Error> {
    let refuse = |why: String| minijinja::Error::new(minijinja::ErrorKind::BadSerialization, why);
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let json = to_json(value).map_err(refuse)?;
    match indent {
        None => Ok(json.to_string()),
        Some(spaces) => {
            let spaces = " ".repeat(spaces.min(8));
            let mut text = Vec::new();
            let style = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            let mut writer = serde_json::Serializer::with_formatter(&mut text, style);
            serde::Serialize::serialize(&json, &mut writer).map_err(|e| refuse(e.to_string()))?;
            String::from_utf8(text).map_err(|error| refuse(error.to_string()))
        }
    }
}
