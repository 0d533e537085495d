# docker build -t editbench . && docker run -v editbench:/cache -v "$PWD:/work" editbench compare
FROM python:3.12-slim
RUN pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir "/src[plot,tune]" && rm -r /src
ENV EDITBENCH_CACHE=/cache
RUN editbench setup-model
VOLUME /cache
WORKDIR /work
ENTRYPOINT ["editbench"]
