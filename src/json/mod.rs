//! Python values as JSON. Only `walk` handles Python objects; `string`, `float` and `style` do not
//! depend on Python.

pub mod float;
pub mod string;
pub mod style;
mod walk;

use std::convert::Infallible;

use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

pub(crate) use self::string::write_string;
pub(crate) use self::style::Spelling;
pub(crate) use self::walk::write;

const SPELLINGS: [(&str, Spelling); 2] = [
    ("fastapi", Spelling::Fastapi),
    ("compact", Spelling::Compact),
];

impl<'py> IntoPyObject<'py> for Spelling {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        let [fastapi, compact] = SPELLINGS.map(|(word, _)| word);
        Ok(PyString::new(
            py,
            match self {
                Self::Fastapi => fastapi,
                Self::Compact => compact,
            },
        ))
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Spelling {
    type Error = PyErr;

    fn extract(name: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        for (word, spelling) in SPELLINGS {
            if name.eq(word)? {
                return Ok(spelling);
            }
        }
        Err(PyValueError::new_err(format!(
            "json must be 'fastapi' or 'compact', not {}",
            name.repr()?
        )))
    }
}
