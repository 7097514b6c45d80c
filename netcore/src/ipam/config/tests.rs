//! Every refusal of the command line and the daemon, with Docker's text.

use super::*;

/// `subnet range gateway aux`, each a comma list or `-`.
fn gathered(options: &str) -> Result<Vec<SubnetSpec>, String> {
    let columns: Vec<Vec<&str>> =
        options.split(' ').map(|list| list.split(',').filter(|item| *item != "-").collect()).collect();
    let nets = |column: &[&str]| column.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let gateways: Vec<_> = columns[2].iter().map(|text| text.parse().unwrap()).collect();
    let auxiliary = columns[3].iter().map(|text| text.split_once('=').unwrap());
    let auxiliary = auxiliary.map(|(name, ip)| (name.to_owned(), ip.parse().unwrap())).collect();
    gather(&nets(&columns[0]), &nets(&columns[1]), &gateways, &auxiliary).map_err(|e| e.to_string())
}

#[test]
fn the_command_lines_refusals() {
    let cases = [
        ("- 10.0.0.0/24 - -", "every ip-range or gateway must have a corresponding subnet"),
        ("10.0.0.0/24 - 10.0.0.1,10.0.0.2 -", "every ip-range or gateway must have a corresponding subnet"),
        ("10.0.0.0/8,10.1.0.0/16 - - -", "multiple overlapping subnet configuration is not supported"),
        ("10.1.0.0/16,10.0.0.0/8 - - -", "multiple overlapping subnet configuration is not supported"),
        (
            "10.0.0.0/16,fd00::/64 10.0.1.0/24,10.0.2.0/24 - -",
            "cannot configure multiple ranges (10.0.2.0/24, 10.0.1.0/24) on the same subnet (10.0.0.0/16)",
        ),
        (
            "10.0.0.0/16,fd00::/64 - 10.0.0.1,10.0.0.2 -",
            "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/16)",
        ),
        ("10.0.0.0/16 10.1.0.0/24 - -", "no matching subnet for range 10.1.0.0/24"),
        ("10.0.0.0/16 - 10.1.0.1 -", "no matching subnet for gateway 10.1.0.1"),
        ("10.0.0.0/16 - - r=10.1.0.1", "no matching subnet for aux-address 10.1.0.1"),
    ];
    for (options, want) in cases {
        assert_eq!(gathered(options), Err(want.to_owned()), "{options}");
    }
    let both = gathered("10.0.0.0/16,fd00::/64 10.0.5.0/24 fd00::9,10.0.0.9 r=10.0.0.2,s=fd00::2").unwrap();
    assert_eq!(both[0].range, Some("10.0.5.0/24".parse().unwrap()));
    assert_eq!(both[1].gateway, Some("fd00::9".parse().unwrap()));
    assert_eq!(both.iter().map(|spec| spec.auxiliary.len()).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn the_daemons_refusals() {
    let cases = [
        ("10.10.10.0/8 - - -", "invalid subnet 10.10.10.0/8: it should be 10.0.0.0/8"),
        ("10.0.0.0/8 10.1.1.1/16 - -", "invalid ip-range 10.1.1.1/16: it should be 10.1.0.0/16"),
        (
            "10.0.0.0/16 10.0.0.0/8 - -",
            "invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.0.0.0/16",
        ),
        (
            "10.0.0.0/16 10.1.0.0/24 - -",
            "invalid ip-range 10.1.0.0/24: parent subnet 10.0.0.0/16 doesn't contain ip-range",
        ),
        ("10.0.0.0/16 fd00::/64 - -", "invalid ip-range fd00::/64: parent subnet is an IPv4 block"),
        ("fd00::/64 10.0.0.0/16 - -", "invalid ip-range 10.0.0.0/16: parent subnet is an IPv6 block"),
        ("10.0.0.0/16 - fd00::1 -", "invalid gateway fd00::1: parent subnet is an IPv4 block"),
        (
            "10.0.0.0/16 - 10.1.0.1 -",
            "invalid gateway 10.1.0.1: parent subnet 10.0.0.0/16 doesn't contain this address",
        ),
        (
            "10.0.0.0/16 - - r=10.1.0.1",
            "invalid auxiliary address r: parent subnet 10.0.0.0/16 doesn't contain this address",
        ),
        (
            "10.0.0.1/16 - 10.1.0.1 -",
            "* invalid subnet 10.0.0.1/16: it should be 10.0.0.0/16\n\
             * invalid gateway 10.1.0.1: parent subnet 10.0.0.1/16 doesn't contain this address",
        ),
    ];
    for (options, want) in cases {
        let columns: Vec<&str> = options.split(' ').collect();
        let auxiliary = columns[3].split_once('=').map(|(name, ip)| (name.to_owned(), ip.parse().unwrap()));
        let spec = SubnetSpec {
            subnet: columns[0].parse().unwrap(),
            range: columns[1].parse().ok(),
            gateway: columns[2].parse().ok(),
            auxiliary: auxiliary.into_iter().collect(),
        };
        let got = SubnetConfig::check(vec![spec]).map_err(|e| e.to_string());
        assert_eq!(got, Err(format!("invalid network config:\n{want}")), "{options}");
    }
    assert!(SubnetConfig::check(vec![SubnetSpec::new("0.0.0.0/24".parse().unwrap())]).is_ok());
}
