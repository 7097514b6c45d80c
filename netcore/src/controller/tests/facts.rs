//! The facts, what is in memory of them, and the files beside them don't part, whatever fails.

use std::path::PathBuf;
use std::thread;

use super::lab::*;
use crate::controller::Controller;
use crate::model::*;

/// Another hand on the database.
fn sql(controller: &Controller, text: &'static str) -> impl Fn() + Send + 'static {
    let path: PathBuf = controller.0.root.database();
    move || rusqlite::Connection::open(&path).unwrap().execute_batch(text).unwrap()
}

#[test]
fn facts_that_cannot_be_put_back_are_believed() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    let before = lab.snapshot(&controller);
    let mine = sql(&controller, "DROP TRIGGER stuck");
    controller.create_sandbox(sandbox("web", "n")).unwrap();
    let stuck = "CREATE TRIGGER stuck BEFORE DELETE ON endpoint BEGIN SELECT RAISE(ABORT, 'no'); END";
    lab.kernel.state().sabotage = Some(Box::new(sql(&controller, stuck)));
    lab.kernel.state().fail_after = Some(2);
    controller.start_sandbox("web", me()).unwrap_err();
    mine();
    // It counts as running; its address is its own.
    let view = start(&controller, "other", "n");
    assert_eq!(view.endpoints[0].ipv4.unwrap().to_string(), "10.1.0.3/24");
    for name in ["web", "other"] {
        let id = controller.sandbox(name).unwrap().sandbox.id;
        controller.sandbox_ended(id, 1, None).unwrap();
        controller.remove_sandbox(name).unwrap();
    }
    assert_eq!(lab.snapshot(&controller), before);

    let stuck = "CREATE TRIGGER stuck BEFORE DELETE ON network BEGIN SELECT RAISE(ABORT, 'no'); END";
    lab.kernel.state().sabotage = Some(Box::new(sql(&controller, stuck)));
    lab.kernel.state().fail_after = Some(1);
    controller.create_network(with_subnet("m", "10.2.0.0/24")).unwrap_err();
    mine();
    let (status, _) = text(controller.create_network(with_subnet("l", "10.2.0.0/24")));
    assert_eq!(status, 403);
    controller.reconcile().unwrap();
    start(&controller, "there", "m");
    let id = controller.sandbox("there").unwrap().sandbox.id;
    controller.sandbox_ended(id, 0, None).unwrap();
    controller.remove_sandbox("there").unwrap();
    controller.remove_network("m").unwrap();
    assert_eq!(lab.snapshot(&controller), before);

    let stuck = "CREATE TRIGGER stuck BEFORE INSERT ON network BEGIN SELECT RAISE(ABORT, 'no'); END";
    lab.kernel.state().sabotage = Some(Box::new(sql(&controller, stuck)));
    lab.kernel.state().fail_after = Some(0);
    controller.remove_network("n").unwrap_err();
    mine();
    controller.reconcile().unwrap();
    controller.create_network(with_subnet("l", "10.1.0.0/24")).unwrap();
}

#[test]
fn what_a_crash_left_of_a_sandboxs_files_goes_with_the_next_start() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_sandbox(sandbox("web", "bridge")).unwrap();
    let before = lab.snapshot(&controller);
    let kept = controller.0.root.kept(SandboxId::from_random([7; 32]));
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("log.json"), "{}").unwrap();
    let other = kept.with_file_name("readme");
    std::fs::write(&other, "somebody's").unwrap();
    drop(controller);
    let controller = lab.open();
    assert!(!kept.exists() && other.exists());
    std::fs::remove_file(other).unwrap();
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn sandboxes_are_created_while_all_is_made_true() {
    let lab = Lab::new();
    let controller = lab.open();
    thread::scope(|scope| {
        scope.spawn(|| (0..50).for_each(|_| controller.reconcile().unwrap()));
        for number in 0..50 {
            let made = controller.create_sandbox(sandbox(&format!("s{number}"), "bridge")).unwrap();
            assert!(controller.0.root.kept(made.id).exists());
        }
    });
    for view in controller.sandboxes().unwrap() {
        assert!(controller.0.root.kept(view.sandbox.id).exists());
    }
}

#[test]
fn a_device_goes_from_one_network_to_the_next() {
    let lab = Lab::new();
    let controller = lab.open();
    let request = |name: &str, subnet: &str| crate::controller::NetworkRequest {
        subnets: with_subnet(name, subnet).subnets,
        ..with_options(name, &[(options::BRIDGE_NAME, "br-mine")])
    };
    for _ in 0..50 {
        controller.create_network(request("old", "10.1.0.0/24")).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| controller.remove_network("old").unwrap());
            loop {
                match controller.create_network(request("new", "10.2.0.0/24")) {
                    Ok(_) => break,
                    Err(error) => assert_eq!(text::<()>(Err(error)).0, 403),
                }
            }
        });
        let device = "br-mine".parse().unwrap();
        assert!(lab.kernel.state().objects.contains_key(&crate::plan::Key::Bridge(device)));
        controller.remove_network("new").unwrap();
    }
}
