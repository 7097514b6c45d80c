//! Each step in the kernel fails in turn, and so do the firewall's tools: nothing half-made remains.

use super::lab::*;
use crate::controller::{Controller, ControllerError, NetworkRequest};
use crate::model::EndpointSettings;

/// Runs an operation until it goes well, with one more step going well each time.
fn fail_in_turn(
    lab: &Lab,
    controller: &Controller,
    least: usize,
    operation: impl Fn(&Controller) -> Result<(), ControllerError>,
) {
    let before = lab.snapshot(controller);
    for turn in 0.. {
        lab.kernel.state().fail_after = Some(turn);
        let done = operation(controller);
        let failed = lab.kernel.state().fail_after.take().is_none();
        if !failed {
            assert!(done.is_ok() && turn >= least, "{done:?} after {turn}");
            return;
        }
        assert!(done.is_err(), "step {turn} failed, the operation didn't");
        assert_eq!(lab.snapshot(controller), before, "step {turn}");
    }
}

#[test]
fn a_network_that_cannot_be_made_or_removed_leaves_all_as_before() {
    let lab = Lab::new();
    let controller = lab.open();
    let request = NetworkRequest { ipv6: Some(true), ..with_subnet("n", "10.1.0.0/24") };
    // Two sysctls for IPv6, one for IPv4, the bridge.
    fail_in_turn(&lab, &controller, 4, |c| c.create_network(request.clone()).map(drop));
    fail_in_turn(&lab, &controller, 1, |c| c.remove_network("n").map(drop));
}

#[test]
fn without_its_rules_a_network_is_neither_made_nor_removed() {
    let lab = Lab::new();
    let controller = lab.open();
    for operation in [
        |c: &Controller| c.create_network(with_subnet("n", "10.1.0.0/24")).map(drop),
        |c: &Controller| c.remove_network("n").map(drop),
    ] {
        let before = lab.snapshot(&controller);
        lab.kernel.state().tools_fail = true;
        assert_eq!(text(operation(&controller)), (500, "nft failed: no".into()));
        assert_eq!(lab.snapshot(&controller), before);
        lab.kernel.state().tools_fail = false;
        operation(&controller).unwrap();
    }
}

#[test]
fn a_sandbox_that_cannot_be_started_or_connected_leaves_all_as_before() {
    let lab = Lab::new();
    let controller = lab.open();
    controller.create_network(with_subnet("n", "10.1.0.0/24")).unwrap();
    controller.create_network(with_subnet("m", "10.2.0.0/24")).unwrap();
    let mut request = sandbox("web", "n");
    let default = EndpointSettings::default;
    request.networks = [("n".to_owned(), default()), ("m".to_owned(), default())].into();
    controller.create_sandbox(request).unwrap();
    // The namespace, two interfaces, the routes.
    fail_in_turn(&lab, &controller, 4, |c| c.start_sandbox("web", me()).map(drop));
    fail_in_turn(&lab, &controller, 1, |c| c.disconnect("m", "web", false));
    fail_in_turn(&lab, &controller, 2, |c| c.connect("m", "web", default()).map(drop));
}

#[test]
fn what_cannot_be_removed_at_the_end_is_removed_later_and_its_address_held() {
    let lab = Lab::new();
    let controller = lab.open();
    let before = lab.snapshot(&controller);
    for turn in 0..2 {
        let id = start(&controller, "web", "bridge").sandbox.id;
        lab.kernel.state().fail_after = Some(turn);
        controller.sandbox_ended(id, 0, None).unwrap();
        let other = start(&controller, "other", "bridge");
        assert_eq!(other.endpoints[0].ipv4.unwrap().to_string(), "172.17.0.3/16", "{turn}");
        controller.sandbox_ended(other.sandbox.id, 0, None).unwrap();
        lab.kernel.state().fail_after = None;
        controller.reconcile().unwrap();
        controller.remove_sandbox("web").unwrap();
        controller.remove_sandbox("other").unwrap();
        assert_eq!(lab.snapshot(&controller), before, "{turn}");
    }
}
