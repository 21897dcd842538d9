//! The k nearest neighbours: each votes for its label by the quality and the speed that were measured for it.

use std::sync::Arc;
use std::thread;

use crate::distance::squared_distances;
use crate::error::Error;
use crate::fields::{Fields, Width};
use crate::json::Matrix;
use crate::kind::{Kind, NotFinite, finite, largest};
use crate::labels::Labels;
use crate::screen::{BLOCK, GROUP, Screen};

const QUALITY_SHARE: f64 = 0.9;
const SPEED_SHARE: f64 = 0.1;
const LEAST_QUALITY: f64 = 0.01;
const MISSING_QUALITY: f64 = 0.5;

pub(crate) struct NearestNeighbours {
    k: usize,
    embeddings: Arc<Matrix>,
    screen: Option<Screen>,
    /// Each example's label, by its place in the sorted list.
    labels: Vec<usize>,
    label_count: usize,
    /// Each example's vote.
    weights: Vec<f64>,
    threads: usize,
}

impl NearestNeighbours {
    pub(crate) fn read(fields: &Fields<'_>, trained: bool, labels: &mut Labels) -> Result<Self, Error> {
        let k = fields.size("k", 1)?;
        let embeddings = fields.matrix("embeddings", &mut Width::default())?;
        let names = fields.strings("labels")?;
        let count = embeddings.len();
        if names.len() != count {
            return Err(lengths(fields, "labels", names.len(), count));
        }
        if trained && count == 0 {
            return Err(fields.error("embeddings", "is empty, and trained is true"));
        }
        let qualities = if fields.has("qualities") { fields.vector("qualities")? } else { Vec::new() };
        let latencies = if fields.has("latencies") { fields.integers("latencies")? } else { Vec::new() };
        for (key, found) in [("qualities", qualities.len()), ("latencies", latencies.len())] {
            if found > count {
                return Err(lengths(fields, key, found, count));
            }
        }
        let mut sorted = names.clone();
        sorted.sort_unstable();
        labels.add_all(&sorted);
        let places = labels.add_all(&names);
        Ok(Self {
            k: k.min(count),
            screen: Screen::new(&embeddings),
            embeddings,
            labels: places,
            label_count: labels.len(),
            weights: vote_weights(&qualities, &latencies, count),
            threads: thread::available_parallelism().map_or(1, usize::from),
        })
    }

    /// Return the labels that got votes with their sums, by label. Votes are added in the order of the neighbours.
    /// Distances that overflow do not tell which neighbours are nearer.
    fn votes(&self, query: &[f64], candidates: Option<Vec<usize>>) -> Result<Vec<(usize, f64)>, NotFinite> {
        let candidates = candidates.unwrap_or_else(|| (0..self.embeddings.len()).collect());
        let distances = squared_distances(query, &self.embeddings, candidates.iter().copied());
        let mut nearest: Vec<(f64, usize)> = distances.into_iter().zip(candidates).collect();
        nearest.sort_unstable_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(&right.1)));
        nearest.truncate(self.k);
        if let Some((_, example)) = nearest.last().filter(|(distance, _)| !distance.is_finite()) {
            return Err(NotFinite { query: 0, label: self.labels[*example] });
        }
        let mut votes = vec![None; self.label_count];
        for (_, example) in nearest {
            *votes[self.labels[example]].get_or_insert(0.0) += self.weights[example];
        }
        finite(votes.into_iter().enumerate().filter_map(|(label, sum)| sum.map(|sum| (label, sum))).collect())
    }

    fn all_votes(&self, queries: &[&[f64]]) -> Result<Vec<Vec<(usize, f64)>>, NotFinite> {
        let mut found = Vec::with_capacity(queries.len());
        for block in queries.chunks(BLOCK) {
            let candidates = match &self.screen {
                Some(screen) => screen.candidates(block, self.k),
                None => vec![None; block.len()],
            };
            for (query, candidates) in block.iter().zip(candidates) {
                let votes = self.votes(query, candidates);
                found.push(votes.map_err(|error| NotFinite { query: found.len(), ..error })?);
            }
        }
        Ok(found)
    }

    fn winners(&self, queries: &[&[f64]]) -> Result<Vec<usize>, NotFinite> {
        Ok(self.all_votes(queries)?.iter().map(|votes| largest(votes).unwrap_or_default()).collect())
    }
}

impl Kind for NearestNeighbours {
    fn width(&self) -> Option<usize> {
        Some(self.embeddings.width).filter(|width| *width > 0)
    }

    fn scores(&self, query: &[f64]) -> Result<Vec<(usize, f64)>, NotFinite> {
        Ok(self.all_votes(&[query])?.pop().unwrap_or_default())
    }

    fn choose(&self, query: &[f64]) -> Result<usize, NotFinite> {
        Ok(self.winners(&[query])?.pop().unwrap_or_default())
    }

    /// Share the queries out among threads, in blocks that go over the examples once.
    fn choose_all(&self, queries: &[&[f64]]) -> Result<Vec<usize>, NotFinite> {
        let share = queries.len().div_ceil(self.threads).next_multiple_of(GROUP).max(GROUP);
        let Some((here, others)) = queries.split_at_checked(share) else { return self.winners(queries) };
        thread::scope(|scope| {
            let spawn = |part| thread::Builder::new().spawn_scoped(scope, move || self.winners(part)).map_err(|_| part);
            let parts: Vec<_> = others.chunks(share).map(spawn).collect();
            let mut found = self.winners(here)?;
            for part in parts {
                let winners = match part.map(thread::ScopedJoinHandle::join) {
                    Ok(Ok(winners)) => winners,
                    Ok(Err(panic)) => std::panic::resume_unwind(panic),
                    // The system has no thread to spare.
                    Err(queries) => self.winners(queries),
                };
                let first = found.len();
                found.extend(winners.map_err(|error| NotFinite { query: first + error.query, ..error })?);
            }
            Ok(found)
        })
    }
}

/// Return the weight of each example's vote: 0.9 of its quality and 0.1 of its speed.
fn vote_weights(qualities: &[f64], latencies: &[i64], count: usize) -> Vec<f64> {
    let least = latencies.iter().copied().min().unwrap_or(0) as f64;
    let most = latencies.iter().copied().max().unwrap_or(0) as f64;
    let speed = |example: usize| {
        let latency = latencies.get(example).map_or(f64::midpoint(least, most), |latency| *latency as f64);
        1.0 - (latency - least) / (most - least).max(1.0)
    };
    (0..count)
        .map(|example| {
            let quality = qualities.get(example).map_or(MISSING_QUALITY, |quality| quality.max(LEAST_QUALITY));
            let speed = if latencies.is_empty() { 1.0 } else { speed(example) };
            QUALITY_SHARE * quality + SPEED_SHARE * speed
        })
        .collect()
}

fn lengths(fields: &Fields<'_>, key: &str, found: usize, expected: usize) -> Error {
    fields.error(key, format!("has {found} values and embeddings has {expected}"))
}
