//! A multilayer perceptron: linear layers, ReLU, batch normalisation and dropout, which does nothing here.

use std::sync::Arc;

use crate::distance::dot;
use crate::error::Error;
use crate::fields::{Fields, Width};
use crate::json::Matrix;
use crate::kind::{Kind, NotFinite, finite, largest};
use crate::labels::Labels;

const DEFAULT_EPSILON: f64 = 1e-5;
const TYPES: [&str; 4] = ["linear", "relu", "batch_norm", "dropout"];

pub(crate) struct Perceptron {
    layers: Vec<Layer>,
    /// Each output's label.
    labels: Vec<usize>,
    width: usize,
}

enum Layer {
    Linear {
        weight: Arc<Matrix>,
        bias: Option<Vec<f64>>,
    },
    Relu,
    BatchNorm {
        mean: Option<Vec<f64>>,
        variance: Option<Vec<f64>>,
        epsilon: f64,
        weight: Option<Vec<f64>>,
        bias: Option<Vec<f64>>,
    },
    Dropout,
}

impl Perceptron {
    pub(crate) fn read(fields: &Fields<'_>, trained: bool, labels: &mut Labels) -> Result<Self, Error> {
        let names = fields.strings("model_names")?;
        let width = fields.size("feature_dim", 0)?;
        let classes = fields.size("n_classes", 0)?;
        for (place, hidden) in fields.integers("hidden_sizes")?.into_iter().enumerate() {
            if hidden < 1 {
                let fault = format!("must be an integer of 1 or more, found {hidden}");
                return Err(fields.error(&format!("hidden_sizes[{place}]"), fault));
            }
        }
        fields.number("dropout")?;
        let layers = fields.objects("layers")?;
        if classes != names.len() {
            let fault = format!("is {classes} and model_names has {} values", names.len());
            return Err(fields.error("n_classes", fault));
        }
        for (key, is_empty) in [("model_names", names.is_empty()), ("layers", layers.is_empty())] {
            if trained && is_empty {
                return Err(fields.error(key, "is empty, and trained is true"));
            }
        }
        let mut size = width;
        let layers = layers.iter().map(|layer| read_layer(layer, &mut size)).collect::<Result<Vec<_>, _>>()?;
        if !layers.is_empty() && size != classes {
            return Err(fields.error("layers", format!("end with {size} values and model_names has {classes}")));
        }
        Ok(Self { layers, labels: labels.add_all(&names), width })
    }
}

/// Read a layer that takes `size` values; `size` becomes how many it gives.
fn read_layer(fields: &Fields<'_>, size: &mut usize) -> Result<Layer, Error> {
    match fields.choice("type", &TYPES)? {
        "linear" => {
            check_size(fields, "in_features", *size)?;
            let outputs = fields.size("out_features", 1)?;
            let weight = fields.matrix("weight", &mut Width::default())?;
            if (weight.len(), weight.width) != (outputs, *size) {
                let fault = format!("has {} by {} values, expected {outputs} by {size}", weight.len(), weight.width);
                return Err(fields.error("weight", fault));
            }
            *size = outputs;
            Ok(Layer::Linear { weight, bias: optional(fields, "bias", outputs)? })
        }
        "batch_norm" => {
            check_size(fields, "num_features", *size)?;
            let epsilon = if fields.has("eps") { fields.number("eps")? } else { DEFAULT_EPSILON };
            let variance = optional(fields, "running_var", *size)?;
            let found = variance.as_deref().unwrap_or(&[1.0]);
            if let Some(place) = found.iter().position(|variance| *variance + epsilon <= 0.0) {
                return Err(fields.error(&format!("running_var[{place}]"), "plus eps must be more than 0"));
            }
            Ok(Layer::BatchNorm {
                mean: optional(fields, "running_mean", *size)?,
                variance,
                epsilon,
                weight: optional(fields, "weight", *size)?,
                bias: optional(fields, "bias", *size)?,
            })
        }
        "dropout" => fields.number("p").map(|_| Layer::Dropout),
        _ => Ok(Layer::Relu),
    }
}

fn check_size(fields: &Fields<'_>, key: &str, size: usize) -> Result<(), Error> {
    let found = fields.size(key, 1)?;
    if found == size { Ok(()) } else { Err(fields.error(key, format!("is {found}, and the layer gets {size} values"))) }
}

/// Return a list of a layer that may be null. It has no default, since a file may name a huge size.
fn optional(fields: &Fields<'_>, key: &str, size: usize) -> Result<Option<Vec<f64>>, Error> {
    if !fields.has(key) {
        return Ok(None);
    }
    let found = fields.vector(key)?;
    if found.len() == size {
        Ok(Some(found))
    } else {
        Err(fields.error(key, format!("has {} values, expected {size}", found.len())))
    }
}

impl Layer {
    fn apply(&self, mut values: Vec<f64>) -> Vec<f64> {
        match self {
            Self::Linear { weight, bias } => {
                let output = |(place, row)| dot(row, &values) + value_or(bias, place, 0.0);
                weight.rows().enumerate().map(output).collect()
            }
            // Not f64::max, which turns NaN into 0.
            Self::Relu => values.into_iter().map(|value| if value < 0.0 { 0.0 } else { value }).collect(),
            Self::BatchNorm { mean, variance, epsilon, weight, bias } => {
                for (place, value) in values.iter_mut().enumerate() {
                    let deviation = (value_or(variance, place, 1.0) + epsilon).sqrt();
                    let standard = (*value - value_or(mean, place, 0.0)) / deviation;
                    *value = standard * value_or(weight, place, 1.0) + value_or(bias, place, 0.0);
                }
                values
            }
            Self::Dropout => values,
        }
    }
}

fn value_or(values: &Option<Vec<f64>>, place: usize, default: f64) -> f64 {
    values.as_ref().map_or(default, |values| values[place])
}

impl Kind for Perceptron {
    fn width(&self) -> Option<usize> {
        Some(self.width).filter(|width| *width > 0)
    }

    /// Return the outputs, in the order of `model_names`.
    fn scores(&self, query: &[f64]) -> Result<Vec<(usize, f64)>, NotFinite> {
        let outputs = self.layers.iter().fold(query.to_vec(), |values, layer| layer.apply(values));
        finite(self.labels.iter().copied().zip(outputs).collect())
    }

    fn choose(&self, query: &[f64]) -> Result<usize, NotFinite> {
        Ok(largest(&self.scores(query)?).unwrap_or_default())
    }
}
