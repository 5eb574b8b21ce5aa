//! The items of a dict that other code may change meanwhile: walking it ends in an error where
//! `PyO3`'s own iterator would panic.

#[cfg(Py_GIL_DISABLED)]
pub(crate) use self::copied::DictItems;
#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use self::watched::DictItems;

/// With a GIL only an encoder that is called for one of the values can change the dict, which is
/// seen before the next step.
#[cfg(not(Py_GIL_DISABLED))]
mod watched {
    use pyo3::exceptions::PyRuntimeError;
    use pyo3::prelude::*;
    use pyo3::types::PyDict;
    use pyo3::types::dict::BoundDictIterator;

    pub(crate) struct DictItems<'py> {
        dict: Bound<'py, PyDict>,
        iter: BoundDictIterator<'py>,
        remaining: usize,
        len: usize,
    }

    impl<'py> DictItems<'py> {
        pub(crate) fn of(dict: &Bound<'py, PyDict>) -> Self {
            let len = dict.len();
            Self {
                dict: dict.clone(),
                iter: dict.iter(),
                remaining: len,
                len,
            }
        }
    }

    impl<'py> Iterator for DictItems<'py> {
        type Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

        #[inline(always)]
        #[expect(clippy::inline_always, reason = "it is the loop of the JSON writer")]
        fn next(&mut self) -> Option<Self::Item> {
            if self.dict.len() != self.len {
                // Ends the iteration after this error.
                self.len = self.dict.len();
                self.remaining = 0;
                return Some(Err(changed("changed size")));
            }
            if self.remaining == 0 {
                return None;
            }
            self.remaining -= 1;
            match self.iter.next() {
                Some(item) => Some(Ok(item)),
                None => Some(Err(changed("keys changed"))),
            }
        }
    }

    #[cold]
    fn changed(what: &str) -> PyErr {
        PyRuntimeError::new_err(format!("dictionary {what} during iteration"))
    }
}

/// Without a GIL another thread can change the dict between a check and the step after it: a copy
/// of its items is walked.
#[cfg(Py_GIL_DISABLED)]
mod copied {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;
    use pyo3::types::list::BoundListIterator;

    pub(crate) struct DictItems<'py> {
        iter: BoundListIterator<'py>,
    }

    impl<'py> DictItems<'py> {
        pub(crate) fn of(dict: &Bound<'py, PyDict>) -> Self {
            Self {
                iter: dict.items().into_iter(),
            }
        }
    }

    impl<'py> Iterator for DictItems<'py> {
        type Item = PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)>;

        fn next(&mut self) -> Option<Self::Item> {
            self.iter.next().map(|item| item.extract())
        }
    }
}
