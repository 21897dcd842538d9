//! Finds, in float32, the few rows that can be among the nearest to a query; the caller computes those exactly.
//!
//! With u = 2⁻²⁴, n values, and Q and X the lengths of the query and of the longest row, a row's estimate is
//! e = ‖x‖² − 2·p. Here p is the sum of products in float32 of the query and the row, each rounded to float32.
//! Its error has three parts:
//!
//! - Rounding the inputs changes each product by at most (2u + u²)·|qᵢxᵢ|, and the sum of n products, each added with
//!   at most two roundings, adds γₙ₊₁·Σ|qᵢxᵢ|, where γₙ = n·u / (1 − n·u). As Σ|qᵢxᵢ| ≤ Q·X, both together are less
//!   than 1.03·(n + 4)·u·Q·X while n·u ≤ 0.006.
//! - Values below float32's normal range are rounded absolutely, by at most 2⁻¹⁵⁰ each. That is less than
//!   n·2⁻¹⁴⁰·(1 + Q + X) in all while no value is above 10¹⁵, which also keeps float32 from overflowing.
//! - ‖x‖², the exact distance S of the caller, and the last subtraction are rounded in float64. Together that is less
//!   than 4·(n + 8)·2⁻⁵³·(Q + X)².
//!
//! So |e + ‖q‖² − S| ≤ B, with B = 2.1·(n + 4)·u·Q·X + 2·n·2⁻¹⁴⁰·(1 + Q + X) + 4·(n + 8)·2⁻⁵³·(Q + X)². A row among
//! the k nearest has S ≤ S₍ₖ₎, the k-th smallest S, thus e ≤ S₍ₖ₎ − ‖q‖² + B ≤ e₍ₖ₎ + 2·B: all such rows are
//! candidates. Beyond the limits above, every row is one.

use crate::distance::dot;
use crate::json::Matrix;

/// Rows of a panel: two registers of AVX2.
const LANES: usize = 16;
/// Queries that go over a panel at once: with two registers each, they fill AVX2's sixteen but for four.
pub(crate) const GROUP: usize = 6;
/// Queries whose estimates are held at once.
pub(crate) const BLOCK: usize = 8 * GROUP;
/// Largest value and number of values for which the bound holds.
const LARGEST: f64 = 1e15;
const WIDEST: usize = 100_000;

/// The rows in float32. In a panel of `LANES` rows, the first values of all stand first, then the second ones, ….
pub(crate) struct Screen {
    panels: Vec<f32>,
    squares: Vec<f64>,
    longest: f64,
    width: usize,
}

impl Screen {
    /// Return the screen of a matrix; None where the bound does not hold.
    pub(crate) fn new(matrix: &Matrix) -> Option<Self> {
        if matrix.width == 0 || matrix.width > WIDEST || !all_small(&matrix.values) {
            return None;
        }
        let width = matrix.width;
        let mut panels = vec![0.0; matrix.len().div_ceil(LANES) * LANES * width];
        for (rows, panel) in matrix.values.chunks(LANES * width).zip(panels.chunks_exact_mut(LANES * width)) {
            for (lane, row) in rows.chunks_exact(width).enumerate() {
                for (value, lanes) in row.iter().zip(panel.chunks_exact_mut(LANES)) {
                    lanes[lane] = *value as f32;
                }
            }
        }
        let squares: Vec<f64> = matrix.rows().map(|row| dot(row, row)).collect();
        let longest = squares.iter().copied().fold(0.0, f64::max).sqrt();
        Some(Self { panels, squares, longest, width })
    }

    /// Return for each query the rows that can be among its k nearest, in order; None stands for all rows.
    ///
    /// `k` is at least 1 and at most the number of rows. There are at most `BLOCK` queries.
    pub(crate) fn candidates(&self, queries: &[&[f64]], k: usize) -> Vec<Option<Vec<usize>>> {
        let products = if queries.len() == 1 { self.products::<1>(queries) } else { self.products::<GROUP>(queries) };
        let padded = self.panels.len() / self.width;
        queries
            .iter()
            .zip(products.chunks_exact(padded))
            .map(|(query, products)| all_small(query).then(|| self.nearest(query, products, k)))
            .collect()
    }

    fn nearest(&self, query: &[f64], products: &[f32], k: usize) -> Vec<usize> {
        let estimates: Vec<f64> =
            self.squares.iter().zip(products).map(|(square, product)| square - 2.0 * f64::from(*product)).collect();
        let mut sorted = estimates.clone();
        let (_, kth, _) = sorted.select_nth_unstable_by(k - 1, f64::total_cmp);
        let limit = *kth + 2.0 * self.bound(dot(query, query).sqrt());
        (0..estimates.len()).filter(|row| estimates[*row] <= limit).collect()
    }

    fn bound(&self, length: f64) -> f64 {
        let (n, longest) = (self.width as f64, self.longest);
        let single = f64::from(f32::EPSILON) / 2.0;
        let double = f64::EPSILON / 2.0;
        let tiny = 2_f64.powi(-140);
        2.1 * (n + 4.0) * single * length * longest
            + 2.0 * n * tiny * (1.0 + length + longest)
            + 4.0 * (n + 8.0) * double * (length + longest).powi(2)
    }

    /// Return each query's sums of products with all rows, those of the last panel's padding included.
    fn products<const Q: usize>(&self, queries: &[&[f64]]) -> Vec<f32> {
        let groups: Vec<Vec<[f32; Q]>> = queries
            .chunks(Q)
            .map(|group| {
                let value = |place| std::array::from_fn(|query| group.get(query).map_or(0.0, |row| row[place] as f32));
                (0..self.width).map(value).collect()
            })
            .collect();
        let mut products = vec![0.0; groups.len() * Q * (self.panels.len() / self.width)];
        multiply(&self.panels, &groups, &mut products);
        products
    }
}

fn all_small(values: &[f64]) -> bool {
    values.iter().all(|value| value.abs() <= LARGEST)
}

/// Multiply with the widest instructions of this processor.
fn multiply<const Q: usize>(panels: &[f32], groups: &[Vec<[f32; Q]>], products: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: the processor has both features.
        #[allow(unsafe_code, reason = "a function for one kind of processor")]
        return unsafe { multiply_avx2(panels, groups, products) };
    }
    multiply_panels::<Q, { cfg!(target_arch = "aarch64") }>(panels, groups, products);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn multiply_avx2<const Q: usize>(panels: &[f32], groups: &[Vec<[f32; Q]>], products: &mut [f32]) {
    multiply_panels::<Q, true>(panels, groups, products);
}

/// Go over the panels once; each stays in the cache for all groups of queries.
#[inline(always)]
fn multiply_panels<const Q: usize, const FUSED: bool>(panels: &[f32], groups: &[Vec<[f32; Q]>], products: &mut [f32]) {
    let Some(width) = groups.first().map(Vec::len) else { return };
    let padded = panels.len() / width;
    for (place, panel) in panels.chunks_exact(width * LANES).enumerate() {
        let (panel, _) = panel.as_chunks::<LANES>();
        for (group, products) in groups.iter().zip(products.chunks_exact_mut(Q * padded)) {
            let mut sums = [[0.0_f32; LANES]; Q];
            for (lanes, values) in panel.iter().zip(group) {
                for query in 0..Q {
                    for lane in 0..LANES {
                        let sum = &mut sums[query][lane];
                        *sum = if FUSED {
                            lanes[lane].mul_add(values[query], *sum)
                        } else {
                            lanes[lane] * values[query] + *sum
                        };
                    }
                }
            }
            for (sums, products) in sums.iter().zip(products.chunks_exact_mut(padded)) {
                products[place * LANES..][..LANES].copy_from_slice(sums);
            }
        }
    }
}
