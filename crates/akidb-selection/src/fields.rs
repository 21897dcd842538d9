//! Typed access to the fields of an object. Every fault is an [`Error::Field`] that names the field.

use std::sync::Arc;

use crate::error::Error;
use crate::json::{Matrix, Object, Value};

/// The fields of one object of a selector's JSON.
pub(crate) struct Fields<'a> {
    object: &'a Object,
    /// The object's place, before the names of its fields.
    path: String,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(object: &'a Object) -> Self {
        Self { object, path: String::new() }
    }

    pub(crate) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    pub(crate) fn error(&self, key: &str, fault: impl Into<String>) -> Error {
        Error::field(self.name(key), fault)
    }

    /// Return whether a field is there and not null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| !matches!(value, Value::Null))
    }

    pub(crate) fn boolean(&self, key: &str) -> Result<bool, Error> {
        match self.get(key)? {
            Value::Bool(value) => Ok(*value),
            other => Err(self.wrong(key, "true or false", other)),
        }
    }

    /// Return an integer of `least` or more.
    pub(crate) fn integer(&self, key: &str, least: i64) -> Result<i64, Error> {
        let value = self.get(key)?;
        integer(value)
            .filter(|found| *found >= least)
            .ok_or_else(|| self.wrong(key, &format!("an integer of {least} or more"), value))
    }

    /// Return an integer of `least` or more as a size.
    pub(crate) fn size(&self, key: &str, least: i64) -> Result<usize, Error> {
        Ok(usize::try_from(self.integer(key, least)?).unwrap_or(usize::MAX))
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, Error> {
        let value = self.get(key)?;
        number(value).ok_or_else(|| self.wrong(key, "a number", value))
    }

    pub(crate) fn text(&self, key: &str) -> Result<&'a str, Error> {
        match self.get(key)? {
            Value::Text(text) => Ok(text),
            other => Err(self.wrong(key, "a string", other)),
        }
    }

    pub(crate) fn choice(&self, key: &str, options: &[&'static str]) -> Result<&'static str, Error> {
        let found = self.text(key)?;
        let wrong = || self.wrong(key, &format!("one of {}", options.join(", ")), &Value::Text(found.to_owned()));
        options.iter().find(|option| **option == found).copied().ok_or_else(wrong)
    }

    pub(crate) fn strings(&self, key: &str) -> Result<Vec<&'a str>, Error> {
        let expected = "a list of strings";
        self.items(key, expected)?
            .iter()
            .enumerate()
            .map(|(place, item)| match item {
                Value::Text(text) => Ok(text.as_str()),
                other => Err(self.wrong(&format!("{key}[{place}]"), "a string", other)),
            })
            .collect()
    }

    /// Return a list of 64-bit integers.
    pub(crate) fn integers(&self, key: &str) -> Result<Vec<i64>, Error> {
        match self.get(key)? {
            Value::Vector(vector) if vector.integers => Ok(vector.values.iter().map(|value| *value as i64).collect()),
            Value::Vector(vector) => {
                let fraction = vector.values.iter().position(|value| value.fract() != 0.0);
                let place = fraction.map(|place| format!("[{place}]")).unwrap_or_default();
                Err(self.error(&format!("{key}{place}"), "must be an integer, found a decimal number"))
            }
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(place, item)| {
                    integer(item).ok_or_else(|| self.wrong(&format!("{key}[{place}]"), "an integer of 64 bits", item))
                })
                .collect(),
            other => Err(self.wrong(key, "a list of integers", other)),
        }
    }

    /// Return a list of numbers.
    pub(crate) fn vector(&self, key: &str) -> Result<Vec<f64>, Error> {
        let value = self.get(key)?;
        numbers(value, &self.name(key))?.ok_or_else(|| self.wrong(key, "a list of numbers", value))
    }

    /// Return a list of rows of numbers, each of the same length.
    pub(crate) fn matrix(&self, key: &str, width: &mut Width) -> Result<Arc<Matrix>, Error> {
        let rows = match self.get(key)? {
            Value::Matrix(matrix) => {
                width.check(matrix.width, &self.name(&format!("{key}[0]")))?;
                return Ok(Arc::clone(matrix));
            }
            Value::List(rows) => rows,
            Value::Vector(_) => {
                return Err(self.error(&format!("{key}[0]"), "must be a list of numbers, found a number"));
            }
            other => return Err(self.wrong(key, "a list of lists of numbers", other)),
        };
        let mut values = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let place = format!("{key}[{place}]");
            let found =
                numbers(row, &self.name(&place))?.ok_or_else(|| self.wrong(&place, "a list of numbers", row))?;
            width.check(found.len(), &self.name(&place))?;
            values.extend(found);
        }
        Ok(Arc::new(Matrix::new(values, width.size)))
    }

    pub(crate) fn object(&self, key: &str) -> Result<Fields<'a>, Error> {
        match self.get(key)? {
            Value::Object(object) => Ok(Fields { object, path: format!("{}.", self.name(key)) }),
            other => Err(self.wrong(key, "an object", other)),
        }
    }

    pub(crate) fn objects(&self, key: &str) -> Result<Vec<Fields<'a>>, Error> {
        self.items(key, "a list of objects")?
            .iter()
            .enumerate()
            .map(|(place, item)| match item {
                Value::Object(object) => Ok(Fields { object, path: format!("{}[{place}].", self.name(key)) }),
                other => Err(self.wrong(&format!("{key}[{place}]"), "an object", other)),
            })
            .collect()
    }

    /// Return the items of a list that holds no numbers.
    fn items(&self, key: &str, expected: &str) -> Result<&'a [Value], Error> {
        match self.get(key)? {
            Value::List(items) => Ok(items),
            other => Err(self.wrong(key, expected, other)),
        }
    }

    fn find(&self, key: &str) -> Option<&'a Value> {
        self.object.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn get(&self, key: &str) -> Result<&'a Value, Error> {
        self.find(key).ok_or_else(|| self.error(key, "is missing"))
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.error(key, format!("must be {expected}, found {}", found.shown()))
    }
}

/// The one length that several rows must have, and the row that it is of.
#[derive(Default)]
pub(crate) struct Width {
    pub(crate) size: usize,
    source: String,
}

impl Width {
    pub(crate) fn check(&mut self, size: usize, name: &str) -> Result<(), Error> {
        if size == 0 {
            return Err(Error::field(name, "is empty"));
        }
        if self.size == 0 {
            self.size = size;
            name.clone_into(&mut self.source);
        }
        if size != self.size {
            return Err(Error::field(name, format!("has {} and {} has {}", count(size), self.source, self.size)));
        }
        Ok(())
    }
}

/// Return a number of values in words.
pub(crate) fn count(size: usize) -> String {
    format!("{size} value{}", if size == 1 { "" } else { "s" })
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(text) => text.parse().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(text) => text.parse().ok(),
        _ => None,
    }
}

/// Return the numbers of a list; None where the value is no list.
fn numbers(value: &Value, name: &str) -> Result<Option<Vec<f64>>, Error> {
    match value {
        Value::Vector(vector) => Ok(Some(vector.values.clone())),
        Value::Matrix(_) => Err(Error::field(format!("{name}[0]"), "must be a number, found a list")),
        Value::List(items) => items
            .iter()
            .enumerate()
            .map(|(place, item)| {
                let fault = || format!("must be a number, found {}", item.kind());
                number(item).ok_or_else(|| Error::field(format!("{name}[{place}]"), fault()))
            })
            .collect::<Result<_, _>>()
            .map(Some),
        _ => Ok(None),
    }
}
