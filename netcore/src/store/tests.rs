//! What the store promises: facts come back, rules hold, an operation happens whole or not at all.

mod fixtures;
mod hostile;
mod linkgraph;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::*;
use crate::ipam::PoolId;
use crate::model::{Lease, Network, SandboxState};
use fixtures::{Lab, endpoint, network, sandbox};

type Operation = Box<dyn FnOnce(&WriteTx<'_>) -> Result<(), StoreError> + Send>;

#[test]
fn every_type_comes_back_as_it_was_and_survives_a_restart() {
    let lab = Lab::new();
    let (net, mut sb) = (network(1, "net"), sandbox(2, "web"));
    let mut ep = endpoint(3, &net, &sb);
    let lease = |address: &str| Lease {
        pool: PoolId::new("LocalDefault/172.22.0.0/16"),
        address: address.parse().unwrap(),
        endpoint: Some(ep.id),
    };
    let mut leases = vec![lease("172.22.0.10"), lease("172.22.0.9"), lease("fd00::1")];
    let (a, b, c, d) = (net.clone(), sb.clone(), ep.clone(), leases.clone());
    lab.store()
        .write(move |tx| -> Result<(), StoreError> {
            tx.insert_network(&a)?;
            tx.insert_sandbox(&b)?;
            tx.insert_endpoint(&c)?;
            d.iter().try_for_each(|lease| tx.insert_lease(lease))
        })
        .unwrap();
    leases.sort();
    let everything = |tx: &ReadTx<'_>| -> Result<_, StoreError> {
        Ok((tx.networks()?, tx.sandboxes()?, tx.endpoints()?, tx.leases()?))
    };
    let got = lab.store().read(everything).unwrap();
    assert_eq!(got, (vec![net.clone()], vec![sb.clone()], vec![ep.clone()], leases.clone()));
    assert_eq!(leases[0].address.to_string(), "172.22.0.9", "by number");

    sb.state = SandboxState::Created;
    ep.mac = None;
    let mut renamed = net.clone();
    renamed.name = "renamed".parse().unwrap();
    let (a, b, c) = (renamed.clone(), sb.clone(), ep.clone());
    let mut freed = leases[0].clone();
    freed.endpoint = None;
    let d = freed.clone();
    lab.store()
        .write(move |tx| -> Result<(), StoreError> {
            tx.update_network(&a)?;
            tx.update_sandbox(&b)?;
            tx.update_endpoint(&c)?;
            tx.update_lease(&d)
        })
        .unwrap();
    leases[0] = freed;
    let (n, s, e) = (renamed.clone(), sb.clone(), ep.clone());
    lab.store()
        .read(move |tx| -> Result<(), StoreError> {
            assert_eq!((tx.network(n.id)?, tx.network_named(&n.name)?), (Some(n.clone()), Some(n.clone())));
            assert_eq!(
                (tx.sandbox(s.id)?, tx.sandbox_named(&s.config.name)?),
                (Some(s.clone()), Some(s.clone()))
            );
            assert_eq!(tx.endpoint(e.id)?, Some(e.clone()));
            assert_eq!(
                (tx.endpoints_of_network(n.id)?, tx.endpoints_of_sandbox(s.id)?),
                (vec![e.clone()], vec![e.clone()])
            );
            assert_eq!(tx.leases_of_endpoint(e.id)?.len(), 2);
            assert_eq!(tx.leases_of_pool(&PoolId::new("other"))?, []);
            Ok(())
        })
        .unwrap();

    let id = ep.id;
    let left = lab
        .store()
        .write(move |tx| -> Result<_, StoreError> {
            tx.delete_endpoint(id)?;
            tx.leases()
        })
        .unwrap();
    assert_eq!(left, leases[..1], "an endpoint's leases go with it");
    let (n, s) = (net.id, sb.id);
    lab.store()
        .write(move |tx| -> Result<(), StoreError> {
            assert!(
                tx.delete_lease(&PoolId::new("LocalDefault/172.22.0.0/16"), "172.22.0.9".parse().unwrap())?
            );
            assert!(
                !tx.delete_lease(&PoolId::new("LocalDefault/172.22.0.0/16"), "172.22.0.9".parse().unwrap())?
            );
            assert_eq!(tx.delete_leases_of_pool(&PoolId::new("none"))?, 0);
            tx.delete_network(n)?;
            tx.delete_sandbox(s)
        })
        .unwrap();
    assert_eq!(lab.store().read(everything).unwrap(), (vec![], vec![], vec![], vec![]));
}

#[test]
fn uniqueness_is_told_in_dockers_words() {
    let lab = Lab::new();
    let store = lab.store();
    let (net, sb) = (network(1, "net"), sandbox(2, "web"));
    let ep = endpoint(3, &net, &sb);
    let lease = Lease { pool: PoolId::new("p"), address: "10.0.0.1".parse().unwrap(), endpoint: Some(ep.id) };
    let (a, b, c, l) = (net.clone(), sb.clone(), ep.clone(), lease.clone());
    store
        .write(move |tx| -> Result<(), StoreError> {
            tx.insert_network(&a)?;
            tx.insert_sandbox(&b)?;
            tx.insert_endpoint(&c)?;
            tx.insert_lease(&l)
        })
        .unwrap();
    let refused = |operation: Operation| store.write(operation).unwrap_err().to_string();
    let twin = network(9, "net");
    assert_eq!(refused(Box::new(move |tx| tx.insert_network(&twin))), "network with name net already exists");
    let twin = network(1, "other");
    assert_eq!(
        refused(Box::new(move |tx| tx.insert_network(&twin))),
        format!("a network of id {} exists", net.id)
    );
    let twin = sandbox(9, "web");
    let want = format!(
        "Conflict. The container name \"/web\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
        sb.id
    );
    assert_eq!(refused(Box::new(move |tx| tx.insert_sandbox(&twin))), want);
    // the same sandbox under another name, another sandbox under the same name
    let mut same_sandbox = endpoint(8, &net, &sb);
    same_sandbox.name = "x1".into();
    let want = "endpoint with name x1 already exists in network net";
    assert_eq!(refused(Box::new(move |tx| tx.insert_endpoint(&same_sandbox))), want);
    let mut same_name = endpoint(8, &net, &sb);
    same_name.sandbox = None;
    let want = "endpoint with name web already exists in network net";
    assert_eq!(refused(Box::new(move |tx| tx.insert_endpoint(&same_name))), want);
    assert_eq!(refused(Box::new(move |tx| tx.insert_lease(&lease))), "Address already in use");
    let id = net.id;
    let want = format!(
        "error while removing network: network net has active endpoints (name:\"web\" id:\"{}\")",
        ep.id.short()
    );
    assert_eq!(refused(Box::new(move |tx| tx.delete_network(id))), want);
    let id = sb.id;
    assert!(refused(Box::new(move |tx| tx.delete_sandbox(id))).contains("still referred to"));
    let stray = endpoint(8, &network(7, "gone"), &sandbox(6, "gone"));
    assert!(refused(Box::new(move |tx| tx.insert_endpoint(&stray))).contains("doesn't exist"));
    {
        let gone = network(7, "gone");
        let want = format!("network {} not found", gone.id);
        let (a, b) = (gone.clone(), gone.id);
        assert_eq!(refused(Box::new(move |tx| tx.update_network(&a))), want);
        assert_eq!(refused(Box::new(move |tx| tx.delete_network(b))), want);
    }
}

#[test]
fn arguments_resolve_as_the_model_says() {
    let lab = Lab::new();
    let ids: Vec<Network> = (0..40u8)
        .map(|n| network(n / 4 * 16 + n % 4, &format!("n{n}")))
        .chain([network(0xc7, "a0")])
        .collect();
    let all = ids.clone();
    lab.store().write(move |tx| all.iter().try_for_each(|n| tx.insert_network(n))).unwrap();
    let full = ids[3].id.to_string();
    for argument in
        ["", "n1", "0", "01", "a", "a0", "c", "c7", "c7c7", "g", "/n1", "N1", &full, &full[..63], "%", "c7'"]
    {
        let want = crate::model::resolve(
            crate::model::Kind::Network,
            argument,
            ids.iter().map(|n| (n.id, n.name.as_str())),
        );
        let owned = argument.to_owned();
        let got = lab.store().read(move |tx| tx.resolve_network(&owned)).map(|n| n.id);
        assert_eq!(got.map_err(|e| e.to_string()), want.map_err(|e| e.to_string()), "{argument:?}");
    }
    let sb = sandbox(2, "web");
    let b = sb.clone();
    lab.store().write(move |tx| tx.insert_sandbox(&b)).unwrap();
    assert_eq!(lab.store().read(|tx| tx.resolve_sandbox("/web")).unwrap(), sb);
    let error = lab.store().read(|tx| tx.resolve_sandbox("db")).unwrap_err();
    assert_eq!(error.to_string(), "No such container: db");
}

#[test]
fn an_error_or_a_panic_undoes_the_operation_and_the_store_goes_on() {
    let lab = Lab::new();
    let net = network(1, "net");
    let failed = net.clone();
    let error = lab.store().write(move |tx| -> Result<(), StoreError> {
        tx.insert_network(&failed)?;
        Err(StoreError::AddressTaken)
    });
    assert!(matches!(error, Err(StoreError::AddressTaken)));
    let panicking = net.clone();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        lab.store().write(move |tx| -> Result<(), StoreError> {
            tx.insert_network(&panicking)?;
            panic!("on purpose");
        })
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(lab.store().read(|tx| tx.networks()).unwrap(), []);
    lab.store().write(move |tx| tx.insert_network(&net)).unwrap();
    assert_eq!(lab.store().read(|tx| tx.networks()).unwrap().len(), 1);
}

#[test]
fn a_transaction_inside_another_is_refused_rather_than_waited_for() {
    let lab = Lab::new();
    let inner = lab.store().clone();
    let error = lab.store().write(move |_| inner.read(|tx| tx.networks())).unwrap_err();
    assert!(matches!(error, StoreError::Nested), "{error}");
}

#[test]
fn a_thousand_networks_are_listed_by_name() {
    let lab = Lab::new();
    lab.store()
        .write(|tx| {
            (0..1000u32).rev().try_for_each(|n| {
                let mut net = network(0, &format!("net{n:04}"));
                net.id = format!("{n:064x}").parse().unwrap();
                tx.insert_network(&net)
            })
        })
        .unwrap();
    let names: Vec<String> =
        lab.store().read(|tx| tx.networks()).unwrap().into_iter().map(|n| n.name.into()).collect();
    assert_eq!(names, (0..1000).map(|n| format!("net{n:04}")).collect::<Vec<_>>());
}

#[test]
fn many_threads_use_one_store() {
    let lab = Lab::new();
    thread::scope(|scope| {
        for n in 0..16u8 {
            let store = lab.store().clone();
            scope.spawn(move || {
                store.write(move |tx| tx.insert_network(&network(n, &format!("n{n}")))).unwrap()
            });
        }
    });
    assert_eq!(lab.store().read(|tx| tx.networks()).unwrap().len(), 16);
}

#[test]
fn a_second_writer_waits_or_fails_cleanly() {
    let lab = Lab::new();
    lab.store().write(|tx| tx.insert_network(&network(1, "one"))).unwrap();
    let other = Connection::open(lab.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let impatient = Store::open_with(lab.path(), Duration::from_millis(50));
    let error = impatient.map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error:?}");
    let holder = thread::spawn(move || {
        thread::sleep(Duration::from_millis(200));
        other.execute_batch("COMMIT").unwrap();
    });
    lab.store().write(|tx| tx.insert_network(&network(2, "two"))).unwrap();
    holder.join().unwrap();
    let second = Store::open(lab.path()).unwrap();
    assert_eq!(second.read(|tx| tx.networks()).unwrap().len(), 2);
    let labels = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let mut net = network(1, "one");
    net.labels = labels.clone();
    second.write(move |tx| tx.update_network(&net)).unwrap();
    assert_eq!(lab.store().read(|tx| tx.network(network(1, "one").id)).unwrap().unwrap().labels, labels);
}
