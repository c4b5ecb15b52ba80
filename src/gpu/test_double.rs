//! The test double of libcuda and cuDNN, built from `double/` and `kernels/` by g++ where a test asks for it.
//!
//! `tests/it` takes this file too.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that stands for libcuda and cuDNN, built with these definitions (`DOUBLE_CARDS=0`, `DOUBLE_CAPABILITY=61`,
/// `DOUBLE_MEMORY=4096`, `DOUBLE_WRONG_MEAN=1`). `None`, and a line that says so, without g++.
///
/// `crate_folder` is that of this crate. The library is kept beside the test program, for the next run.
pub(crate) fn library(crate_folder: &Path, definitions: &[&str]) -> Option<PathBuf> {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut kernels: Vec<PathBuf> = std::fs::read_dir(crate_folder.join("kernels"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cu"))
        .collect();
    kernels.sort();
    let mut unit = "#include \"shim.h\"\n".to_owned();
    for path in &kernels {
        unit.push_str(&format!("#include \"{}\"\n", path.display()));
    }
    let mut all = definitions.join(" ");
    for path in &kernels {
        let text = read(path);
        for part in text.split("extern \"C\" __global__ void ").skip(1) {
            let (name, _) = part.split_once('(').unwrap();
            unit.push_str(&format!("static bool known_{name} = kernel(\"{name}\", &{name});\n"));
        }
        all.push_str(&text);
    }
    let folder = crate_folder.join("double");
    for name in ["shim.h", "driver.h", "driver.cpp", "cudnn.cpp"] {
        all.push_str(&read(&folder.join(name)));
    }
    // FNV-1a: an edited source is another file.
    let digest =
        all.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let beside = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let made = beside.join(format!("gpu-double-{digest:016x}.so"));
    if made.is_file() {
        return Some(made);
    }
    let scratch = beside.join(format!("gpu-double-{digest:016x}-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let (main, library) = (scratch.join("kernels.cpp"), scratch.join("library.so"));
    std::fs::write(&main, unit).unwrap();
    let built = Command::new("g++")
        // No symbol is shared between two such libraries in one process, and no product is fused with a sum.
        .args(["-O2", "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-gnu-unique", "-fvisibility-inlines-hidden"])
        .args(definitions.iter().map(|definition| format!("-D{definition}")))
        .arg("-I")
        .arg(&folder)
        .args([&folder.join("driver.cpp"), &folder.join("cudnn.cpp"), &main])
        .arg("-o")
        .arg(&library)
        .output();
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            println!("SKIPPED: without g++ ({error}) there is no test double of a card");
            return None;
        }
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::rename(&library, &made).unwrap();
    std::fs::remove_dir_all(&scratch).unwrap();
    Some(made)
}
