//! Configuration space, whoever changes it.

use super::*;

#[test]
fn a_config_change_is_taken_while_the_backend_is_being_called() {
    let bench = bench(Fake::new());
    bench
        .fake
        .on(FrontendReq::SET_VRING_KICK, Answer::ConfigChangeFirst);
    bench.fake.get().config[7] = 77;
    bench.device.start(start(&[0]));
    until("config changed", || bench.ear.count("config changed") == 1);
    assert_eq!((bench.read(7), bench.device.config_generation()), (77, 1));
    until("running", || bench.fake.get().status == 0xf);
    bench.fake.change_config();
    until("config changed", || bench.ear.count("config changed") == 2);
    assert_eq!(bench.ear.count("needs reset"), 0);
}

#[test]
fn a_config_write_is_read_back_from_the_backend() {
    let bench = bench_with(Fake::new(), |spec| spec.deadlines.call = 4 * SHORT).unwrap();
    bench.device.write_config(32, &[0xaa]);
    assert_eq!(bench.read(32), 0xaa);
    assert_eq!(bench.device.config_generation(), 0);
    bench.device.write_config(59, &[1, 2, 3, 4]);
    assert_eq!((bench.read(59), bench.read(60)), (1, 0), "cut at the end");
    bench.device.write_config(60, &[1]);
    bench.device.write_config(u32::MAX, &[1]);
    bench.fake.on(FrontendReq::SET_CONFIG, Answer::Refuse);
    bench.device.write_config(32, &[0xbb]);
    assert_eq!(bench.read(32), 0xaa, "refused");
    bench.fake.on(FrontendReq::SET_CONFIG, Answer::Hang);
    bench.device.write_config(32, &[0xcc]);
    assert_eq!(bench.read(32), 0xaa);
    bench.is_degraded();
}
