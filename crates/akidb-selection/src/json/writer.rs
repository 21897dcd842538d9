//! The writer of JSON.

use super::{Object, Value};

/// Write an object as JSON.
pub(crate) fn write(fields: &Object) -> String {
    let mut out = Vec::new();
    write_object(&mut out, fields);
    // Every part is UTF-8, so nothing is replaced.
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(text) => out.extend_from_slice(text.as_bytes()),
        Value::Text(text) => write_text(out, text),
        Value::Vector(vector) => write_numbers(out, &vector.values, vector.integers),
        Value::Matrix(matrix) => {
            write_list(out, matrix.rows(), |out, row| write_numbers(out, row, matrix.integers));
        }
        Value::List(items) => write_list(out, items, write_value),
        Value::Object(fields) => write_object(out, fields),
    }
}

fn write_object(out: &mut Vec<u8>, fields: &Object) {
    out.push(b'{');
    for (place, (key, value)) in fields.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

fn write_list<I: IntoIterator>(out: &mut Vec<u8>, items: I, write: impl Fn(&mut Vec<u8>, I::Item)) {
    out.push(b'[');
    for (place, item) in items.into_iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

fn write_numbers(out: &mut Vec<u8>, values: &[f64], integers: bool) {
    write_list(out, values, |out, value| write_number(out, *value, integers));
}

/// Return a number of a list as it is written.
pub(super) fn number_text(value: f64, is_integer: bool) -> Box<str> {
    let mut text = Vec::new();
    write_number(&mut text, value, is_integer);
    String::from_utf8_lossy(&text).into()
}

fn write_number(out: &mut Vec<u8>, value: f64, is_integer: bool) {
    // Writing to a Vec does not fail.
    let _ = if is_integer { serde_json::to_writer(out, &(value as i64)) } else { serde_json::to_writer(out, &value) };
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}
