//! Golden files: what a pure function rendered when somebody last looked.

use std::path::Path;
use std::{env, fs};

/// `UPDATE_GOLDEN=1` rewrites the file; the rewrite is reviewed like code.
pub(crate) fn check_golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, got).unwrap();
    }
    let want = fs::read_to_string(&path).unwrap_or_default();
    assert!(want == got, "{name} differs (UPDATE_GOLDEN=1 accepts)\n- want\n{want}\n- got\n{got}");
}
