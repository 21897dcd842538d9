//! Calls of a `Reranker`: pairs of texts in, scores out.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::call::{Request, set_common};
use super::embed_call::{Layout, float_bytes};
use crate::RerankOptions;

/// The `ScoreBatch` of a call.
pub(crate) struct Scored {
    /// One after another, those of a pair side by side.
    pub(crate) scores: Vec<f32>,
    pub(crate) labels: usize,
    pub(crate) token_counts: Vec<usize>,
    pub(crate) truncated: Vec<bool>,
}

/// Pairs to score.
pub(crate) struct ScoreRequest {
    pub(crate) pairs: Vec<(String, String)>,
    pub(crate) options: RerankOptions,
}

impl Request for ScoreRequest {
    type Answer = Scored;

    fn size(&self) -> (usize, usize) {
        (self.pairs.len(), self.pairs.iter().map(|(query, document)| query.len() + document.len()).sum())
    }

    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.pairs.iter().map(|(query, document)| (query.as_str(), document.as_str())))
    }

    fn set_options(&self, keywords: &Bound<'_, PyDict>) -> PyResult<()> {
        if let Some(name) = &self.options.prompt_name {
            keywords.set_item("prompt_name", name)?;
        }
        set_common(keywords, self.options.prompt.as_deref(), self.options.on_overflow)
    }

    fn read(batch: &Bound<'_, PyAny>) -> PyResult<Scored> {
        let token_counts: Vec<usize> = batch.getattr("token_counts")?.extract()?;
        let shape: Vec<usize> = batch.getattr("scores")?.getattr("shape")?.extract()?;
        let labels = shape.get(1).copied().unwrap_or(1);
        let bytes = float_bytes(batch, "scores", token_counts.len(), labels)?;
        Ok(Scored {
            scores: Layout::of(bytes.as_bytes(), labels),
            labels,
            token_counts,
            truncated: batch.getattr("truncated")?.extract()?,
        })
    }
}
