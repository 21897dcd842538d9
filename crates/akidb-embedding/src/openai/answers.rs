//! The answers of an embeddings API, of which nothing is taken on trust.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::failures::{broken, excerpt};
use crate::{EmbeddingError, EmbeddingResult, Failure};

/// How far from 1 the length of a vector may be that is passed on to the bit; float32 rounds by a tenth of this.
const UNIT_TOLERANCE: f64 = 1e-6;

pub(crate) struct Answer {
    /// In the order of the texts.
    pub(crate) vectors: Vec<Vec<f32>>,
    /// The model's name as the API gives it.
    pub(crate) model: Option<String>,
    /// The tokens of all texts together; 0 where the API does not count.
    pub(crate) tokens: usize,
}

/// Return an answer to so many texts, once it is known to hold one vector for each, all of one size, and normalise them.
///
/// # Errors
///
/// `Internal`, with the index of the text in the request.
pub(crate) fn parse(body: &[u8], texts: usize, dimension: Option<usize>) -> EmbeddingResult<Answer> {
    let answer: Value = parse_json(body)?;
    let data = answer["data"].as_array().ok_or_else(|| {
        broken("the API's answer has no list 'data'; is base_url the address of an OpenAI-compatible API?")
    })?;
    if data.len() != texts {
        return Err(broken(format!("the API answered with {} vectors for {texts} texts", data.len())));
    }
    let mut found: Vec<Option<&Value>> = vec![None; texts];
    for entry in data {
        let index = entry["index"].as_u64().and_then(|index| found.get_mut(usize::try_from(index).ok()?));
        let place = index.filter(|place| place.is_none()).ok_or_else(|| {
            let index = excerpt(&entry["index"].to_string(), 40);
            broken(format!("the API's answer to {texts} texts has an entry of index {index}, which is missing, repeated or out of range"))
        })?;
        *place = Some(&entry["embedding"]);
    }
    let mut vectors: Vec<Vec<f32>> = Vec::with_capacity(texts);
    for (index, value) in found.into_iter().flatten().enumerate() {
        let vector = read_vector(value, index)?;
        let size = dimension.or_else(|| vectors.first().map(Vec::len)).unwrap_or(vector.len());
        if vector.len() != size || size == 0 {
            return Err(of_text(
                index,
                format!(
                    "has {} values where {size} are expected; an API that ignores `dimensions` can only be asked without it",
                    vector.len()
                ),
            ));
        }
        vectors.push(to_unit(vector, index)?);
    }
    let tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap_or(0) as usize;
    Ok(Answer { vectors, model: answer["model"].as_str().map(str::to_owned), tokens })
}

pub(crate) fn parse_json(body: &[u8]) -> EmbeddingResult<Value> {
    serde_json::from_slice(body).map_err(|_| {
        let bytes = body.len();
        broken(format!(
            "the API's answer is not JSON ({bytes} bytes); is base_url the address of an OpenAI-compatible API?"
        ))
    })
}

fn of_text(index: usize, problem: impl AsRef<str>) -> EmbeddingError {
    let message = format!("the API's vector for text {index} {}", problem.as_ref());
    EmbeddingError::Internal(Failure { index: Some(index), ..message.into() })
}

/// Read a vector that is sent as numbers, or in base64 as little-endian float32.
fn read_vector(value: &Value, index: usize) -> EmbeddingResult<Vec<f32>> {
    let wrong = || of_text(index, format!("must be numbers or base64, found {}", excerpt(&value.to_string(), 60)));
    match value {
        Value::String(text) => {
            let bytes =
                BASE64_STANDARD.decode(text).map_err(|error| of_text(index, format!("cannot be read: {error}")))?;
            let (values, rest) = bytes.as_chunks::<4>();
            if rest.is_empty() {
                Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
            } else {
                Err(wrong())
            }
        }
        Value::Array(values) => {
            values.iter().map(|value| value.as_f64().map(|value| value as f32).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Return a vector of length 1; one that has it already is passed on to the bit.
fn to_unit(mut vector: Vec<f32>, index: usize) -> EmbeddingResult<Vec<f32>> {
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err(of_text(index, "is not finite or has no length"));
    }
    if (length - 1.0).abs() > UNIT_TOLERANCE {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    Ok(vector)
}
