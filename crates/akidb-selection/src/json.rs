//! A reader of JSON for selectors, and their writer.
//!
//! A list of numbers, and a list of such lists of one length, is read straight into one `Vec<f64>`: a KNN of 200 MB is
//! read in one pass, with 8 bytes for each number. Numbers are rounded correctly, which `str::parse` promises. Nesting
//! is bounded, a key may occur once in an object, and every number is finite. All fields are kept in their order; in a
//! list with decimal numbers, integers are written as such too.

mod reader;
mod writer;

use std::sync::Arc;

use crate::error::shown;

pub(crate) use reader::read;
pub(crate) use writer::write;

/// A value of JSON.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As it is written, since it may be an integer of many digits.
    Number(Box<str>),
    Text(String),
    Vector(Vector),
    Matrix(Arc<Matrix>),
    List(Vec<Value>),
    Object(Object),
}

/// An object's fields in their order, each key once.
pub(crate) type Object = Vec<(String, Value)>;

/// A list of one or more numbers.
#[derive(Debug, Clone)]
pub(crate) struct Vector {
    pub(crate) values: Vec<f64>,
    /// Whether all are written as integers; each is exact.
    pub(crate) integers: bool,
}

/// Rows of numbers of one length, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Matrix {
    pub(crate) values: Vec<f64>,
    pub(crate) width: usize,
    integers: bool,
}

impl Matrix {
    pub(crate) fn new(values: Vec<f64>, width: usize) -> Self {
        Self { values, width, integers: false }
    }

    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.values.chunks_exact(self.width.max(1))
    }

    pub(crate) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.width..][..self.width]
    }

    pub(crate) fn len(&self) -> usize {
        self.rows().len()
    }
}

impl Value {
    /// Return the kind of value, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Vector(_) | Self::Matrix(_) | Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    /// Return the value, or its kind where it is long, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => shown(text),
            Self::Number(text) if text.len() < 40 => text.to_string(),
            Self::Bool(value) => value.to_string(),
            other => other.kind().to_owned(),
        }
    }
}
