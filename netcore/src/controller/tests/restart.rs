//! The daemon ends and starts again; the host does; processes do.

use super::lab::*;
use crate::model::*;

const OTHER_BOOT: &str = "ffffffff-2f43-4c58-9d6e-1a2b3c4d5e6f";

fn exit_code(state: &SandboxState) -> Option<i32> {
    match state {
        SandboxState::Exited(exited) => Some(exited.code),
        _ => None,
    }
}

#[test]
fn what_runs_goes_on_and_addresses_stay_taken() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    start(&controller, "web", "n");
    let before = lab.snapshot(&controller);
    drop(controller);
    let controller = lab.open();
    assert_eq!(lab.snapshot(&controller), before);
    let next = start(&controller, "next", "n");
    assert_eq!(next.endpoints[0].ipv4.unwrap().to_string(), "10.1.0.3/24");
}

#[test]
fn nothing_of_another_boot_is_believed() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    start(&controller, "web", "n");
    drop(controller);
    lab.kernel.state().objects.clear();
    lab.kernel.state().rules.clear();
    lab.kernel.state().sysctls.insert("net/ipv4/ip_forward".into(), "1".into());
    let controller = lab.try_open(lab.config(), OTHER_BOOT).unwrap();
    let view = controller.sandbox("web").unwrap();
    assert_eq!((exit_code(&view.sandbox.state), view.endpoints.len()), (Some(255), 0));
    assert_eq!(controller.network("n").unwrap().pools[0].1.in_use, 3, "network, gateway, broadcast");
    assert_eq!(lab.kernel.state().objects.len(), 2, "two bridges");
    // Forwarding was on before us in this boot: that it was us in another is forgotten.
    assert!(!lab.kernel.state().drops_foreign());
}

#[test]
fn that_forwarding_was_turned_on_by_us_is_remembered() {
    let lab = Lab::new();
    drop(lab.open());
    assert!(lab.kernel.state().drops_foreign());
    lab.kernel.state().rules.clear();
    drop(lab.open());
    assert!(lab.kernel.state().drops_foreign());
}

#[test]
fn a_sandbox_whose_supervisor_is_gone_has_ended() {
    let lab = Lab::new();
    let controller = lab.open();
    let before = lab.snapshot(&controller);
    let mut request = sandbox("gone", "bridge");
    controller.create_sandbox(request.clone()).unwrap();
    request.name = Some("removed".into());
    request.auto_remove = true;
    controller.create_sandbox(request).unwrap();
    let dead = ProcessId { start_ticks: me().start_ticks + 1, ..me() };
    controller.start_sandbox("gone", dead).unwrap();
    controller.start_sandbox("removed", dead).unwrap();
    let running = controller.clone();
    running.reconcile().unwrap();
    let view = controller.sandbox("gone").unwrap();
    assert_eq!((exit_code(&view.sandbox.state), view.endpoints.len()), (Some(137), 0));
    assert!(controller.sandbox("removed").is_err());
    controller.start_sandbox("gone", dead).unwrap();
    drop((controller, running));
    let controller = lab.open();
    assert_eq!(exit_code(&controller.sandbox("gone").unwrap().sandbox.state), Some(137));
    controller.remove_sandbox("gone").unwrap();
    assert_eq!(lab.snapshot(&controller), before);
}

#[test]
fn a_supervisor_that_is_gone_ends_its_own_run_only() {
    let lab = Lab::new();
    let controller = lab.open();
    let id = start(&controller, "web", "bridge").sandbox.id;
    let earlier = ProcessId { start_ticks: 1, ..me() };
    controller.supervisor_gone(id, earlier).unwrap();
    assert_eq!(controller.running().unwrap().len(), 1);
    controller.supervisor_gone(id, me()).unwrap();
    assert_eq!(exit_code(&controller.sandbox("web").unwrap().sandbox.state), Some(137));
}

#[test]
fn a_network_that_cannot_be_made_again_keeps_nobody_from_starting_but_missing_rules_do() {
    let lab = Lab::new();
    drop(lab.open());
    lab.kernel.state().fail_after = Some(1);
    drop(lab.open());
    assert_eq!(lab.kernel.state().fail_after, None, "it failed");
    lab.kernel.state().tools_fail = true;
    assert_eq!(text(lab.try_open(lab.config(), BOOT)), (500, "nft failed: no".into()));
    lab.kernel.state().tools_fail = false;
    lab.open();
}

#[test]
fn what_somebody_removed_is_made_again() {
    let lab = Lab::new();
    let controller = lab.open();
    start(&controller, "web", "bridge");
    let before = lab.snapshot(&controller);
    let rules = lab.kernel.state().rules.len();
    lab.kernel.state().objects.clear();
    controller.reconcile().unwrap();
    assert_eq!(lab.snapshot(&controller), before);
    assert!(lab.kernel.state().rules.len() > rules);
}

#[test]
fn a_second_daemon_is_kept_away_from_the_data() {
    let lab = Lab::new();
    let controller = lab.open();
    let (status, error) = text(lab.try_open(lab.config(), BOOT));
    let data = controller.0.root.data().display();
    let want = format!("{data} is in use by another portmap daemon: stop it, or choose another --data-root");
    assert_eq!((status, error), (503, want));
    drop(controller);
    lab.open();
}

#[test]
fn an_endpoint_nobody_knows_is_removed_by_force() {
    let lab = Lab::new();
    let controller = lab.open();
    let bridge = controller.network("bridge").unwrap().network.id;
    let view = start(&controller, "web", "bridge");
    let mut stale = view.endpoints[0].clone();
    stale.id = EndpointId::from_random([9; 32]);
    (stale.sandbox, stale.name) = (None, "ghost".into());
    assert_eq!(stale.network, bridge);
    write(&controller, move |tx| tx.insert_endpoint(&stale));
    controller.disconnect("bridge", "ghost", true).unwrap();
    assert_eq!(controller.network("bridge").unwrap().endpoints.len(), 1);
}

#[test]
fn a_daemon_that_is_ending_is_waited_for() {
    let lab = Lab::new();
    let first = lab.open();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            drop(first);
        });
        lab.open();
    });
}
