//! Support vector machines, one against all: each label has a classifier, and the largest decision value wins.

use std::collections::HashMap;

use crate::distance::{dot, normalized, squared_distance};
use crate::error::Error;
use crate::fields::{Fields, Width};
use crate::kind::{Kind, NotFinite, finite, largest};
use crate::labels::Labels;

const KERNELS: [&str; 2] = ["Linear", "Rbf"];

pub(crate) struct OneAgainstAll {
    linear: Vec<Linear>,
    radial: Vec<Radial>,
    /// The support vectors of all classifiers, each once, since the classifiers of a file share most of them.
    vectors: Vec<Vec<f64>>,
    width: usize,
}

struct Linear {
    label: usize,
    weights: Vec<f64>,
    rho: f64,
}

struct Radial {
    label: usize,
    /// Places in the list of all support vectors.
    vectors: Vec<usize>,
    alpha: Vec<f64>,
    rho: f64,
    gamma: f64,
}

impl OneAgainstAll {
    pub(crate) fn read(fields: &Fields<'_>, trained: bool, labels: &mut Labels) -> Result<Self, Error> {
        let names = fields.strings("model_names")?;
        if trained && names.is_empty() {
            return Err(fields.error("model_names", "is empty, and trained is true"));
        }
        labels.add_all(&names);
        fields.choice("kernel_type", &KERNELS)?;
        fields.number("gamma")?;
        let mut width = Width::default();
        let linear = fields
            .objects("linear_classifiers")?
            .iter()
            .map(|classifier| read_linear(classifier, &mut width, labels))
            .collect::<Result<_, _>>()?;
        let mut vectors = Shared::default();
        let radial = fields
            .objects("rbf_classifiers")?
            .iter()
            .map(|classifier| read_radial(classifier, &mut width, labels, &mut vectors))
            .collect::<Result<_, _>>()?;
        Ok(Self { linear, radial, vectors: vectors.rows, width: width.size })
    }
}

fn read_linear(fields: &Fields<'_>, width: &mut Width, labels: &mut Labels) -> Result<Linear, Error> {
    let label = labels.add(fields.text("model_name")?);
    let weights = fields.vector("weights")?;
    width.check(weights.len(), &fields.name("weights"))?;
    Ok(Linear { label, weights, rho: fields.number("rho")? })
}

fn read_radial(
    fields: &Fields<'_>,
    width: &mut Width,
    labels: &mut Labels,
    vectors: &mut Shared,
) -> Result<Radial, Error> {
    let label = labels.add(fields.text("model_name")?);
    let alpha = fields.vector("alpha")?;
    let rows = fields.matrix("support_vectors", width)?;
    if rows.len() != alpha.len() {
        let fault = format!("has {} values and {} has {}", rows.len(), fields.name("alpha"), alpha.len());
        return Err(fields.error("support_vectors", fault));
    }
    if alpha.is_empty() {
        return Err(fields.error("support_vectors", "is empty"));
    }
    let vectors = rows.rows().map(|row| vectors.add(row)).collect();
    Ok(Radial { label, vectors, alpha, rho: fields.number("rho")?, gamma: fields.number("gamma")? })
}

/// Rows, each once.
#[derive(Default)]
struct Shared {
    rows: Vec<Vec<f64>>,
    places: HashMap<Vec<u64>, usize>,
}

impl Shared {
    fn add(&mut self, row: &[f64]) -> usize {
        *self.places.entry(row.iter().map(|value| value.to_bits()).collect()).or_insert_with(|| {
            self.rows.push(row.to_vec());
            self.rows.len() - 1
        })
    }
}

impl Kind for OneAgainstAll {
    fn width(&self) -> Option<usize> {
        Some(self.width).filter(|width| *width > 0)
    }

    /// Return the classifiers' decision values, those of linear ones first.
    fn scores(&self, query: &[f64]) -> Result<Vec<(usize, f64)>, NotFinite> {
        let unit = normalized(query);
        let distances: Vec<f64> = self.vectors.iter().map(|vector| squared_distance(&unit, vector)).collect();
        let linear = self.linear.iter().map(|one| (one.label, dot(&one.weights, &unit) - one.rho));
        let radial = self.radial.iter().map(|one| {
            let kernel = |vector: &usize| (-one.gamma * distances[*vector]).exp();
            let sum: f64 = one.alpha.iter().zip(&one.vectors).map(|(alpha, vector)| alpha * kernel(vector)).sum();
            (one.label, sum - one.rho)
        });
        finite(linear.chain(radial).collect())
    }

    /// Return the label with the largest decision value; without classifiers, the first of `model_names`.
    fn choose(&self, query: &[f64]) -> Result<usize, NotFinite> {
        Ok(largest(&self.scores(query)?).unwrap_or_default())
    }
}
