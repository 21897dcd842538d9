//! Calls of an `EmbeddingService`: texts in, vectors out as bytes.

use std::marker::PhantomData;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::call::{Request, set_common};
use crate::EmbedOptions;

/// What the vectors of a call become; from Python's bytes in one copy.
pub(crate) trait Layout: Send + 'static {
    /// `bytes` are float32 in this machine's order, `dimension` a row.
    fn of(bytes: &[u8], dimension: usize) -> Self;
}

impl Layout for Vec<f32> {
    fn of(bytes: &[u8], _: usize) -> Self {
        let (values, _) = bytes.as_chunks();
        values.iter().map(|value| f32::from_ne_bytes(*value)).collect()
    }
}

impl Layout for Vec<Vec<f32>> {
    fn of(bytes: &[u8], dimension: usize) -> Self {
        bytes.chunks_exact(4 * dimension.max(1)).map(|row| Layout::of(row, dimension)).collect()
    }
}

/// The `EmbeddingBatch` of a call.
pub(crate) struct Embedded<L> {
    pub(crate) vectors: L,
    pub(crate) dimension: usize,
    pub(crate) token_counts: Vec<usize>,
    pub(crate) truncated: Vec<bool>,
}

/// Texts to embed.
pub(crate) struct EmbedRequest<L> {
    pub(crate) texts: Vec<String>,
    pub(crate) normalize: bool,
    pub(crate) options: EmbedOptions,
    pub(crate) layout: PhantomData<fn() -> L>,
}

impl<L: Layout> Request for EmbedRequest<L> {
    type Answer = Embedded<L>;

    fn size(&self) -> (usize, usize) {
        (self.texts.len(), self.texts.iter().map(String::len).sum())
    }

    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, &self.texts)
    }

    fn set_options(&self, keywords: &Bound<'_, PyDict>) -> PyResult<()> {
        if !self.normalize {
            keywords.set_item("normalize", false)?;
        }
        if let Some(input_type) = &self.options.input_type {
            keywords.set_item("input_type", input_type)?;
        }
        if let Some(dimensions) = self.options.dimensions {
            keywords.set_item("dimensions", dimensions)?;
        }
        set_common(keywords, self.options.prompt.as_deref(), self.options.on_overflow)
    }

    fn read(batch: &Bound<'_, PyAny>) -> PyResult<Embedded<L>> {
        let dimension: usize = batch.getattr("dimension")?.extract()?;
        let token_counts: Vec<usize> = batch.getattr("token_counts")?.extract()?;
        let bytes = float_bytes(batch, "vectors", token_counts.len(), dimension)?;
        Ok(Embedded {
            vectors: L::of(bytes.as_bytes(), dimension),
            dimension,
            token_counts,
            truncated: batch.getattr("truncated")?.extract()?,
        })
    }
}

/// The float32 array (rows, size) that an attribute holds. Bytes, because abi3 has the buffer protocol only from Python
/// 3.11.
pub(crate) fn float_bytes<'py>(
    batch: &Bound<'py, PyAny>,
    name: &str,
    rows: usize,
    size: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let bytes = batch.getattr(name)?.call_method0("tobytes")?.cast_into::<PyBytes>()?;
    let found = bytes.as_bytes().len();
    if found != 4 * size * rows {
        let message = format!("found {found} bytes instead of {rows} rows of {size} float32 {name} each");
        return Err(PyValueError::new_err(message));
    }
    Ok(bytes)
}
