//! Sandboxes without root: in a user namespace of one's own, where there is one user and one group.

#![forbid(unsafe_code)]

use std::process::Command;

use e2e::{bin, need};

#[test]
fn a_user_namespace_is_enough_for_a_sandbox() {
    if need::root().is_none() {
        return;
    }
    // Only inside is /run another one, and everything goes with the first process.
    let script = "mount -t tmpfs tmpfs /run && ip link set lo up && \
        \"$0\" run --rm -- ip -brief -4 address show eth0";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "sh", "-c", script])
        .arg(bin::portmap())
        .env("PORTMAP_HOST", "unix:///run/portmap/portmap.sock")
        .env("PORTMAP_DATA_ROOT", "/run/data")
        .env("PORTMAP_EXEC_ROOT", "/run/portmap")
        .output()
        .expect("unshare is everywhere");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(said.contains("172.17.0.2/16"), "{said}");
}
