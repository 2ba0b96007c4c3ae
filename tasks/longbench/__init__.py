"""LongBench (Bai et al., 2023, https://arxiv.org/abs/2308.14508) as `ape_longbench_*` tasks."""
