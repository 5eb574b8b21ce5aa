//! Iteration over a dict that other code may change at the same time.
//!
//! A change raises the `RuntimeError` that Python raises for it. `PyO3`'s own iterator would panic.

#[cfg(Py_GIL_DISABLED)]
pub(crate) use self::copied::DictItems;
#[cfg(not(Py_GIL_DISABLED))]
pub(crate) use self::watched::DictItems;

/// With a GIL, only code that runs between two steps can change the dict, for example an encoder of
/// one of its values. The next step notices the change.
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
                // The iteration ends after this error.
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

/// Without a GIL, another thread can change the dict between a check and the step after it, so this
/// iterates over a copy of the items.
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
