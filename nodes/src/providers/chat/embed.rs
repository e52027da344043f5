//! Texts as vectors: what is asked, and what the answer says.

use exile_engine::model::{Embeddings, ProviderFault, Usage};
use serde_json::{Map, Value, json};

use crate::providers::error;

/// The body of a request.
pub(crate) fn body(model: &str, texts: &[String], further: &Map<String, Value>) -> Value {
    let mut body = further.clone();
    body.insert("model".into(), json!(model));
    body.insert("input".into(), json!(texts));
    Value::Object(body)
}

/// Reads an answer to `count` texts. Vectors may come in any order.
pub(crate) fn read(text: &[u8], asked: &str, count: usize) -> Result<Embeddings, ProviderFault> {
    let text = String::from_utf8_lossy(text);
    let json: Value = serde_json::from_str(text.trim())
        .map_err(|e| error::garbage(format!("not JSON ({e}): {text}")))?;
    if let Some(fault) = error::inside_answer(&json) {
        return Err(fault);
    }
    let mut vectors: Vec<Vec<f32>> = vec![Vec::new(); count];
    for (place, item) in json["data"].as_array().into_iter().flatten().enumerate() {
        let index = item["index"].as_u64().and_then(|i| usize::try_from(i).ok()).unwrap_or(place);
        let vector = vectors.get_mut(index);
        let vector = vector.ok_or_else(|| error::garbage(format!("no text has index {index}")))?;
        let numbers = item["embedding"].as_array().into_iter().flatten();
        *vector = numbers.filter_map(Value::as_f64).map(single).collect();
    }
    let length = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|v| v.is_empty() || v.len() != length) {
        return Err(error::garbage("not a vector of one length for every text"));
    }
    let input = json["usage"]["prompt_tokens"].as_u64();
    Ok(Embeddings {
        vectors,
        usage: input.map(|input| Usage { input, ..Usage::default() }),
        model: json["model"].as_str().unwrap_or(asked).to_owned(),
    })
}

#[allow(clippy::cast_possible_truncation, reason = "what is measured in angles needs no more")]
fn single(number: f64) -> f32 {
    number as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_in_any_order_and_none_may_be_missing() {
        let answer = json!({ "model": "e-1", "usage": { "prompt_tokens": 7, "total_tokens": 7 },
            "data": [{ "index": 1, "embedding": [0.0, 1.0] },
                { "index": 0, "embedding": [1, 0] }] });
        let read = |count| read(answer.to_string().as_bytes(), "asked", count);
        let vectors = read(2).unwrap();
        assert_eq!(vectors.vectors, [[1.0, 0.0], [0.0, 1.0]]);
        assert_eq!((vectors.usage.unwrap().input, &*vectors.model), (7, "e-1"));
        assert_eq!(read(3).unwrap_err().code(), "provider_garbage");
        assert_eq!(read(1).unwrap_err().code(), "provider_garbage");
    }
}
