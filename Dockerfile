# One image for migrations, provisioning, every service and the mock providers: the command tells them apart.
FROM python:3.13-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN useradd --system --uid 10001 --no-create-home app

# pip reads these as its own environment variables, here and nowhere else.
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
# By itself, so that a change of the code installs nothing anew. Wheels only: there is no compiler here.
COPY requirements.lock .
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
    -r requirements.lock

COPY alembic.ini .
COPY migrations migrations
COPY mock_providers mock_providers
COPY shared shared
COPY services services

USER 10001
