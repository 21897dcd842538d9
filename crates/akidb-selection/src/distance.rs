//! Distances and lengths in float64.

use crate::json::Matrix;

/// Return the squared Euclidean distance of a query from each of some rows.
///
/// The squares are added from left to right, as Python's selectors add them, so the last bits are the same. Four rows
/// go side by side, since each addition waits for the one before it.
pub(crate) fn squared_distances(
    query: &[f64],
    matrix: &Matrix,
    rows: impl ExactSizeIterator<Item = usize>,
) -> Vec<f64> {
    let mut found = Vec::with_capacity(rows.len());
    let mut rows = rows;
    while rows.len() >= 4 {
        let four: [&[f64]; 4] = std::array::from_fn(|_| matrix.row(rows.next().unwrap_or_default()));
        let mut sums = [0.0; 4];
        for (place, value) in query.iter().enumerate() {
            for (sum, row) in sums.iter_mut().zip(four) {
                let difference = value - row[place];
                *sum += difference * difference;
            }
        }
        found.extend(sums);
    }
    found.extend(rows.map(|row| squared_distance(query, matrix.row(row))));
    found
}

/// Return the squared Euclidean distance, added from left to right.
pub(crate) fn squared_distance(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).fold(0.0, |sum, (left, right)| sum + (left - right) * (left - right))
}

/// Return the sum of products.
pub(crate) fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Lengths between these have squares that neither overflow nor lose digits.
const PLAIN_LENGTHS: std::ops::Range<f64> = 1e-140..1e140;

/// Return a query divided by its length; one of zeros stays as it is.
pub(crate) fn normalized(query: &[f64]) -> Vec<f64> {
    let length = dot(query, query).sqrt();
    let largest = query.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    if largest > 0.0 && !PLAIN_LENGTHS.contains(&length) {
        let scaled: Vec<f64> = query.iter().map(|value| value / largest).collect();
        let length = dot(&scaled, &scaled).sqrt();
        return scaled.iter().map(|value| value / length).collect();
    }
    let length = if length > 0.0 { length } else { 1.0 };
    query.iter().map(|value| value / length).collect()
}
