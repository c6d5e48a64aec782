"""Figures of arXiv 2502.08606v2, and figures computed from its formulas independently of this project's code."""

import numpy as np

UNIT_VECTORS = {
    # (N_S, D_S): supervised loss, then student losses at L_T 1.9, 2.2, 2.6 with B' as printed and as corrected
    (1.434e8, 3.7e9): (2.849193, (2.591092, 2.629570, 2.742439), (2.738724, 2.721336, 2.772867)),
    (5.46e8, 1.23e10): (2.500680, (2.358779, 2.405061, 2.608143), (2.429468, 2.436656, 2.609398)),
    (1.821e9, 3.89e10): (2.244531, (2.167077, 2.244800, 2.600006), (2.196376, 2.249715, 2.600006)),
}
TEACHER_LOSSES = (1.9, 2.2, 2.6)

MEASURED_TEACHERS = np.array([1.8953, 1.9735, 2.0837, 2.1784, 2.2665, 2.3705, 2.5038, 2.7545])
MEASURED = {
    # (N_S, D_S): student losses at the teachers above, read off Figure 1
    (0.1434e9, 3.7e9): (2.7548, 2.7506, 2.7434, 2.7393, 2.7358, 2.7348, 2.7428, 2.8212),
    (0.1434e9, 14.6e9): (2.6267, 2.6239, 2.6197, 2.6176, 2.6177, 2.6227, 2.6480, 2.7781),
    (0.1983e9, 4.9e9): (2.6743, 2.6689, 2.6633, 2.6587, 2.6572, 2.6601, 2.6743, 2.7877),
    (0.546e9, 12.3e9): (2.4409, 2.4392, 2.4325, 2.4316, 2.4418, 2.4699, 2.5371, 2.7381),
}

FORWARD_GFLOPS = {
    0.1028: 0.3398, 0.1434: 0.4471, 0.1983: 0.5853, 0.546: 1.415, 0.9755: 2.397, 1.821: 4.280, 2.718: 6.241,
    4.823: 10.77, 7.747: 16.99, 12.61: 27.23,
}  # fmt: skip
"""Billions of parameters: GFLOPs per token."""

TEACHERS = {198e6: (2.7545, 2.7585), 546e6: (2.5038, 2.5005), 975e6: (2.3705, 2.3706), 1.82e9: (2.2665, 2.2446)}
"""Size: measured loss and the law's, at 20.37 tokens per parameter (embeddings counted)."""

OPTIMA = {
    # (N_S, C): supervised loss, then by scenario the student's loss (and what else the optimum has)
    (3e8, 1e21): (2.3648, 2.3512, 2.3623, 2.3733, 2.3960),
    (1e9, 1e21): (2.2215, 2.2004, 2.2165, 2.2847, 2.3025),
    (1e9, 1e23): (2.1000, 2.1048, 2.1088, 2.1058, 2.1136),
    (1e10, 1e21): (2.2290, 2.0884, 2.1349, 2.3028, 2.3076),
    (1e10, 1e23): (1.8664, 1.8534, 1.8657, 1.9112, 1.9227),
}
BEST_TEACHER = {
    (3e8, 1e21): 2.1696,
    (1e9, 1e21): 2.0138,
    (1e9, 1e23): 1.9682,
    (1e10, 1e21): 1.5765,
    (1e10, 1e23): 1.7060,
}
OPTIMAL_PRETRAINING = {
    # (N_S, C): D_S, N_T, D_T of the scenario teacher-pretraining
    (3e8, 1e21): (2.27e11, 1.97e9, 3.12e10),
    (1e9, 1e21): (5.90e10, 2.27e9, 3.58e10),
    (1e10, 1e23): (6.52e11, 2.44e10, 3.70e11),
}
CROSSOVERS = {
    "best-case": {1e9: 1.8e22, 3e9: 7.5e22, 1e10: 1.6e24},
    "teacher-inference": {1e9: 1.9e21, 3e9: 9.4e21, 1e10: 1.2e23},
}
