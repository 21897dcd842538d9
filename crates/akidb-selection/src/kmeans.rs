//! The nearest centroid: each cluster has the label that did best in it.

use std::sync::Arc;

use crate::distance::squared_distances;
use crate::error::Error;
use crate::fields::{Fields, Width};
use crate::json::Matrix;
use crate::kind::{Kind, NotFinite, finite, largest};
use crate::labels::Labels;

pub(crate) struct NearestCentroid {
    centroids: Arc<Matrix>,
    /// Each centroid's label.
    labels: Vec<usize>,
    label_count: usize,
}

impl NearestCentroid {
    pub(crate) fn read(fields: &Fields<'_>, trained: bool, labels: &mut Labels) -> Result<Self, Error> {
        fields.integer("num_clusters", 0)?;
        let centroids = fields.matrix("centroids", &mut Width::default())?;
        let names = fields.strings("cluster_models")?;
        let count = centroids.len();
        if names.len() < count {
            let fault = format!("has {} values and centroids has {count}", names.len());
            return Err(fields.error("cluster_models", fault));
        }
        if trained && count == 0 {
            return Err(fields.error("centroids", "is empty, and trained is true"));
        }
        let places = labels.add_all(&names[..count]);
        Ok(Self { centroids, labels: places, label_count: labels.len() })
    }
}

impl Kind for NearestCentroid {
    fn width(&self) -> Option<usize> {
        Some(self.centroids.width).filter(|width| *width > 0)
    }

    /// Return for each label minus the squared distance of its nearest centroid.
    fn scores(&self, query: &[f64]) -> Result<Vec<(usize, f64)>, NotFinite> {
        let mut nearest = vec![f64::INFINITY; self.label_count];
        let distances = squared_distances(query, &self.centroids, 0..self.centroids.len());
        for (distance, label) in distances.into_iter().zip(&self.labels) {
            nearest[*label] = nearest[*label].min(distance);
        }
        finite(nearest.into_iter().map(|distance| -distance).enumerate().collect())
    }

    fn choose(&self, query: &[f64]) -> Result<usize, NotFinite> {
        let distances = squared_distances(query, &self.centroids, 0..self.centroids.len());
        let closeness: Vec<_> = self.labels.iter().copied().zip(distances.iter().map(|distance| -distance)).collect();
        if closeness.iter().any(|(_, score)| !score.is_finite()) {
            self.scores(query)?; // where a label has no finite score, this names it
        }
        Ok(largest(&closeness).unwrap_or_default())
    }
}
