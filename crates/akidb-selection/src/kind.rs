//! The interface of the four kinds of selectors.

/// A score that is not finite.
#[derive(Debug)]
pub(crate) struct NotFinite {
    /// The query's position in its batch.
    pub(crate) query: usize,
    /// The label's place in the selector's list.
    pub(crate) label: usize,
}

/// The data of one kind of selector, and its choice. Queries are finite and have the kind's number of values; labels
/// are places in the selector's list.
pub(crate) trait Kind: Send + Sync {
    /// Return how many values a query has; None where the file does not tell.
    fn width(&self) -> Option<usize>;

    /// Return the score of each label, in the order of the definition.
    fn scores(&self, query: &[f64]) -> Result<Vec<(usize, f64)>, NotFinite>;

    /// Return the label of a query.
    fn choose(&self, query: &[f64]) -> Result<usize, NotFinite>;

    /// Return the label of each query.
    fn choose_all(&self, queries: &[&[f64]]) -> Result<Vec<usize>, NotFinite> {
        let place = |query, error: NotFinite| NotFinite { query, ..error };
        queries.iter().enumerate().map(|(at, query)| self.choose(query).map_err(|error| place(at, error))).collect()
    }
}

/// Return the place of the largest score, of equal ones the first; None where there is none.
pub(crate) fn largest(scores: &[(usize, f64)]) -> Option<usize> {
    let better = |best: (usize, f64), score: &(usize, f64)| if score.1 > best.1 { *score } else { best };
    let (first, others) = scores.split_first()?;
    Some(others.iter().fold(*first, better).0)
}

/// Return the scores where all are finite.
pub(crate) fn finite(scores: Vec<(usize, f64)>) -> Result<Vec<(usize, f64)>, NotFinite> {
    match scores.iter().find(|(_, score)| !score.is_finite()) {
        Some((label, _)) => Err(NotFinite { query: 0, label: *label }),
        None => Ok(scores),
    }
}
