use super::super::lab::{
    DUAL, LOCAL, PROVIDER_END, SECOND_END, attachment, consumer, consumer_on_both, endpoint, link, member,
    network, provider, sandbox, texts, zones,
};
use super::*;

fn find(zones: &Zones, view: &View, name: &str) -> Option<Vec<String>> {
    texts(zones.find(view, name.as_bytes()))
}

fn addresses(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn a_sandbox_has_its_names_in_order_and_once() {
    let id = provider();
    let aliases = ["app".to_owned(), "provider".to_owned(), "a21d98819934".to_owned(), "app".to_owned()];
    assert_eq!(names("provider", &aliases, &id, "a21d98819934"), ["provider", "app", "a21d98819934"]);
    assert_eq!(names("provider", &[], &id, "shop"), ["provider", "a21d98819934", "shop"]);
    assert_eq!(names("provider", &[String::new()], &id, ""), ["provider", "a21d98819934"]);
}

#[test]
fn the_whole_text_is_looked_for_first_then_names_in_networks() {
    let mut zones = zones();
    let dotted = attachment(3, "b.C", vec![]);
    let view = View::new(vec![attachment(LOCAL, "local_bridge", vec![]), dotted, attachment(4, "c", vec![])]);
    let join = |zones: &mut Zones, net: u8, end, name: &str, address: &str| {
        zones.join(
            network(net),
            endpoint(end),
            member(sandbox(u8::try_from(end).unwrap()), name, &[], "", address),
        );
    };
    join(&mut zones, 3, 30, "a", "10.0.0.3");
    assert_eq!(find(&zones, &view, "a.b.c"), addresses(&["10.0.0.3"]));
    join(&mut zones, 4, 31, "a.b", "10.0.0.4");
    assert_eq!(find(&zones, &view, "a.b.c"), addresses(&["10.0.0.4"]));
    join(&mut zones, LOCAL, 32, "a.b.c", "10.0.0.5");
    assert_eq!(find(&zones, &view, "A.b.C."), addresses(&["10.0.0.5"]));
    assert_eq!(find(&zones, &view, "a.b"), addresses(&["10.0.0.4"]));
    assert_eq!(find(&zones, &view, "a.c"), None);
    for odd in ["", ".", "..", ".c", "a..c", ".b.c", "b.c", "c"] {
        assert_eq!(find(&zones, &view, odd), None, "{odd:?}");
    }
}

#[test]
fn the_first_network_that_knows_a_name_answers_alone() {
    let zones = zones();
    let view = |priority: i32, internal: bool| {
        let local = Attachment { gw_priority: priority, ..attachment(LOCAL, "local_bridge", vec![]) };
        View::new(vec![local, Attachment { internal, ..attachment(DUAL, "dual", vec![]) }])
    };
    let dual = addresses(&["172.23.0.2", "fd5a:1:2:3::2"]);
    assert_eq!(find(&zones, &view(0, false), "second"), dual);
    assert_eq!(find(&zones, &view(-1, true), "second"), dual);
    assert_eq!(find(&zones, &view(1, false), "second"), addresses(&["172.22.0.3"]));
    assert_eq!(find(&zones, &view(0, true), "second"), addresses(&["172.22.0.3"]));
    assert_eq!(find(&zones, &view(0, false), "second.local_bridge"), addresses(&["172.22.0.3"]));
    assert_eq!(find(&zones, &View::new(vec![]), "second"), None);
}

#[test]
fn links_are_private_and_hide_whom_they_are_called_like() {
    let zones = zones();
    let view = |links| View::new(vec![attachment(LOCAL, "local_bridge", links)]);
    let mutual = view(vec![link("second", "provider", None), link("provider", "second", None)]);
    assert_eq!(find(&zones, &mutual, "second"), addresses(&["172.22.0.2"]));
    assert_eq!(find(&zones, &mutual, "Provider.local_bridge"), addresses(&["172.22.0.3"]));
    assert_eq!(
        find(&zones, &view(vec![link("all", "App", None)]), "all"),
        addresses(&["172.22.0.2", "172.22.0.3"])
    );
    assert_eq!(find(&zones, &view(vec![link("x", "a21d98819934", None)]), "x"), addresses(&["172.22.0.2"]));
    assert_eq!(find(&zones, &view(vec![link("x", "shop", None)]), "x"), addresses(&["172.22.0.3"]));
    // A link doesn't lead to another one, nor to another network.
    let chain = view(vec![link("a", "provider", None), link("b", "a", None), link("c", "cache", None)]);
    assert_eq!((find(&zones, &chain, "b"), find(&zones, &chain, "c")), (None, None));
    // Of two the last counts.
    let twice = view(vec![link("x", "provider", None), link("X", "second", None)]);
    assert_eq!(find(&zones, &twice, "x"), addresses(&["172.22.0.3"]));
    // The target isn't there: the name is hidden on this network, though not on others.
    let hiding = vec![attachment(LOCAL, "local_bridge", vec![link("second", "gone", None)])];
    assert_eq!(find(&zones, &View::new(hiding.clone()), "second"), None);
    let both = View::new([hiding, vec![attachment(DUAL, "dual", vec![])]].concat());
    assert_eq!(find(&zones, &both, "second"), addresses(&["172.23.0.2", "fd5a:1:2:3::2"]));
}

#[test]
fn a_link_follows_a_renamed_sandbox_and_then_the_name() {
    let mut zones = zones();
    let (local, end) = (network(LOCAL), endpoint(PROVIDER_END));
    let followed = vec![link("giver", "provider", Some(provider()))];
    let view = View::new(vec![attachment(LOCAL, "local_bridge", followed)]);
    zones.join(local, end, member(provider(), "p2", &["app"], "", "172.22.0.9"));
    assert_eq!(find(&zones, &view, "giver"), addresses(&["172.22.0.9"]));
    assert_eq!(find(&zones, &consumer(), "giver"), None);
    assert_eq!(
        (find(&zones, &view, "provider"), find(&zones, &view, "p2")),
        (None, addresses(&["172.22.0.9"]))
    );
    zones.leave(&local, &end);
    assert_eq!(find(&zones, &view, "giver"), None);
    zones.join(local, endpoint(40), member(sandbox(40), "provider", &[], "", "172.22.0.40"));
    assert_eq!(find(&zones, &view, "giver"), addresses(&["172.22.0.40"]));
}

#[test]
fn names_come_and_go_with_endpoints() {
    let mut zones = zones();
    let view = consumer_on_both();
    zones.leave(&network(LOCAL), &endpoint(SECOND_END));
    assert_eq!(find(&zones, &consumer(), "second"), None);
    assert_eq!(find(&zones, &consumer(), "app"), addresses(&["172.22.0.2"]));
    assert_eq!(find(&zones, &view, "second"), addresses(&["172.23.0.2", "fd5a:1:2:3::2"]));
    assert_eq!(zones.reverse(&view, "172.22.0.3".parse().unwrap()), None);
    zones.leave(&network(LOCAL), &endpoint(SECOND_END));
    zones.leave(&network(99), &endpoint(SECOND_END));
    for end in [PROVIDER_END, 3] {
        zones.leave(&network(LOCAL), &endpoint(end));
    }
    zones.leave(&network(DUAL), &endpoint(4));
    assert!(zones.networks.is_empty(), "nothing is kept of networks without members");
}

#[test]
fn two_sandboxes_may_be_called_the_same_and_one_twice() {
    let mut zones = Zones::default();
    let net = network(LOCAL);
    let view = View::new(vec![attachment(LOCAL, "n", vec![])]);
    zones.join(net, endpoint(1), member(sandbox(1), "Web", &["web", "www"], "WEB", "10.0.0.1"));
    zones.join(net, endpoint(2), member(sandbox(2), "other", &["web"], "", "10.0.0.2"));
    assert_eq!(find(&zones, &view, "wEB"), addresses(&["10.0.0.1", "10.0.0.2"]));
    // One address, two claims: who came first is who it is called.
    zones.join(net, endpoint(3), member(sandbox(3), "late", &[], "", "10.0.0.1"));
    let name = |zones: &Zones| {
        zones.reverse(&view, "10.0.0.1".parse().unwrap()).map(|(names, net)| format!("{}.{net}", names[0]))
    };
    assert_eq!(name(&zones).as_deref(), Some("Web.n"));
    zones.leave(&net, &endpoint(1));
    assert_eq!(name(&zones).as_deref(), Some("late.n"));
    assert_eq!(find(&zones, &view, "web"), addresses(&["10.0.0.2"]));
}

#[test]
fn a_name_without_addresses_is_known() {
    let mut zones = Zones::default();
    zones.join(network(LOCAL), endpoint(1), member(sandbox(1), "bare", &[], "", ""));
    let view = View::new(vec![attachment(LOCAL, "n", vec![])]);
    assert_eq!(zones.find(&view, b"bare"), Some(Found::default()));
}
