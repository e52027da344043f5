//! From the YAML's `state` to [`Channels`]: names, types, defaults.

use std::collections::BTreeSet;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

use crate::diagnostic::{FINDINGS_LIMIT, Finding, code, suggest};
use crate::document::{Document, child};
use crate::expr::{Expression, SCOPE_NAMES};
use crate::graph::build::unfit;
use crate::graph::spec::ChannelSpec;
use crate::state::{Channel, ChannelType, Channels, Reducer, short};

/// Collects the channels, wrong ones included: their names are known all the same.
pub(super) fn collect(
    document: &Document,
    spec: &IndexMap<String, ChannelSpec>,
    findings: &mut Vec<Finding>,
) -> Channels {
    let channel = |(name, spec): (&String, &ChannelSpec)| {
        let pointer = child("/state", name);
        findings.extend(name_finding(document, &pointer, name));
        findings.extend(type_finding(document, &pointer, spec));
        findings.extend(default_finding(document, &pointer, name, spec));
        Channel {
            name: name.as_str().into(),
            kind: spec.kind,
            reduce: spec.reduce,
            initial: Arc::new(spec.default.clone().unwrap_or_else(|| empty(spec.reduce))),
            scope: spec.scope,
        }
    };
    Channels::new(spec.iter().map(channel).collect())
}

fn empty(reduce: Reducer) -> Value {
    match reduce {
        Reducer::Replace => Value::Null,
        Reducer::Append | Reducer::Messages | Reducer::Union => Value::Array(Vec::new()),
        Reducer::Sum => Value::from(0),
        Reducer::Merge => Value::Object(serde_json::Map::new()),
    }
}

/// A channel is read by its name alone, so it must be a name of the expression language.
pub(super) fn name_finding(document: &Document, pointer: &str, name: &str) -> Option<Finding> {
    if SCOPE_NAMES.contains(&name) {
        let message = format!("`{name}` is always there: it says who and what is running");
        let fix = format!("call the channel something else, e.g. `the_{name}`");
        return Some(document.error_at_key(code::INVALID_NAME, pointer, message, fix));
    }
    let good = Expression::compile(name)
        .is_ok_and(|read| matches!(read.reads(), [one] if one.name == name));
    (!good).then(|| {
        let message = format!("`{name}` cannot be read as a variable");
        let fix = "use letters, digits and `_`, and no word of the expression language";
        document.error_at_key(code::INVALID_NAME, pointer, message, fix)
    })
}

fn type_finding(document: &Document, pointer: &str, spec: &ChannelSpec) -> Option<Finding> {
    let wanted = match spec.reduce {
        Reducer::Replace => return None,
        Reducer::Append | Reducer::Messages | Reducer::Union => ChannelType::Array,
        Reducer::Sum => ChannelType::Number,
        Reducer::Merge => ChannelType::Object,
    };
    let integer = spec.reduce == Reducer::Sum && spec.kind == ChannelType::Integer;
    if spec.kind == wanted || spec.kind == ChannelType::Any || integer {
        return None;
    }
    let name = |kind: ChannelType| format!("{kind:?}").to_lowercase();
    let reduce = format!("{:?}", spec.reduce).to_lowercase();
    let message = format!("`reduce: {reduce}` needs `type: {}`", name(wanted));
    let fix = format!("write `type: {}`, or leave the type out", name(wanted));
    Some(document.error_at(code::INVALID_VALUE, &child(pointer, "type"), message, fix))
}

fn default_finding(
    document: &Document,
    pointer: &str,
    name: &str,
    spec: &ChannelSpec,
) -> Option<Finding> {
    let default = spec.default.as_ref()?;
    let takes = match spec.reduce {
        Reducer::Append | Reducer::Messages | Reducer::Union => {
            (!default.is_array()).then(|| "a list".to_owned())
        }
        reduce => unfit(reduce, spec.kind, default),
    }?;
    let message = format!("the channel `{name}` takes {takes}, not {}", short(default));
    let fix = "write a default of that type, or change `type`";
    Some(document.error_at(code::LITERAL_TYPE, &child(pointer, "default"), message, fix))
}

/// The channels that `input` or `output` lists; all without a list.
pub(super) fn listed(
    document: &Document,
    key: &str,
    list: Option<&Vec<String>>,
    channels: &Channels,
    findings: &mut Vec<Finding>,
) -> Vec<Arc<str>> {
    let Some(list) = list else {
        return channels.iter().map(|channel| channel.name.clone()).collect();
    };
    let mut names: Vec<Arc<str>> = Vec::new();
    let mut seen = BTreeSet::new();
    for (i, name) in list.iter().enumerate() {
        if findings.len() > FINDINGS_LIMIT {
            break;
        }
        let pointer = format!("/{key}/{i}");
        match channels.get(name) {
            None => {
                let message = format!("no channel is named `{name}`");
                let fix = suggest(name, channels.iter().map(|channel| &*channel.name));
                findings.push(document.error_at(code::UNKNOWN_CHANNEL, &pointer, message, fix));
            }
            Some(_) if !seen.insert(name) => {
                let message = format!("`{name}` is listed twice");
                findings.push(document.error_at(
                    code::DUPLICATE_NAME,
                    &pointer,
                    message,
                    "keep one",
                ));
            }
            Some(channel) => names.push(channel.name.clone()),
        }
    }
    names
}
