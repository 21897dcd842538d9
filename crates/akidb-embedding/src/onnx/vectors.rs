//! The last steps to a caller's vectors: dimensions, windows, length, a check of each.

use crate::{EmbeddingError, EmbeddingResult, Failure};

/// How far from 1 the length of a normalised vector may be.
const UNIT_TOLERANCE: f32 = 1e-4;

/// What a call wants of its vectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// The number of first values to keep.
    pub(crate) dimensions: usize,
    pub(crate) normalize: bool,
}

/// Return the vectors of texts, one after another.
///
/// The windows of a text are each cut and normalised, averaged with their token counts as weights, and the average is
/// normalised again.
///
/// # Arguments
///
/// `pooled` holds the vectors of all windows as the model computed them, `native` values each; `windows` the token
/// counts of each text's windows.
pub(crate) fn finish(pooled: &[f32], native: usize, windows: &[Vec<usize>], form: Form) -> EmbeddingResult<Vec<f32>> {
    let mut rows = pooled.chunks_exact(native);
    let mut vectors = Vec::with_capacity(windows.len() * form.dimensions);
    for (index, counts) in windows.iter().enumerate() {
        let start = vectors.len();
        vectors.resize(start + form.dimensions, 0.0);
        let vector = &mut vectors[start..];
        if counts.len() == 1 {
            let row = rows.next().ok_or_else(|| damaged(index))?;
            vector.copy_from_slice(&row[..form.dimensions]);
            settle(vector, index, form.normalize)?;
            continue;
        }
        let total: usize = counts.iter().sum();
        for (&count, row) in counts.iter().zip(&mut rows) {
            let mut window = row[..form.dimensions].to_vec();
            settle(&mut window, index, form.normalize)?;
            let share = count as f32 / total as f32;
            vector.iter_mut().zip(&window).for_each(|(sum, value)| *sum += value * share);
        }
        settle(vector, index, form.normalize)?;
    }
    Ok(vectors)
}

/// Normalise a vector if that is asked, and refuse one that is not finite or has no direction.
fn settle(vector: &mut [f32], index: usize, normalize: bool) -> EmbeddingResult<()> {
    let sound = if normalize {
        let scale = length(vector);
        vector.iter_mut().for_each(|value| *value /= scale);
        (length(vector) - 1.0).abs() < UNIT_TOLERANCE
    } else {
        vector.iter().all(|value| value.is_finite())
    };
    if sound { Ok(()) } else { Err(damaged(index)) }
}

fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|value| value * value).sum::<f32>().sqrt()
}

fn damaged(index: usize) -> EmbeddingError {
    let message =
        format!("the model's vector for text {index} is not finite or has no length; the weights may be damaged");
    EmbeddingError::Internal(Failure { index: Some(index), ..message.into() })
}
