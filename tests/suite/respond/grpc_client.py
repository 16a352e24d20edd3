"""Calls methods as a gRPC client does, and prints what it is told.

    python3 grpc_client.py HOST:PORT < calls.json

Each call is {"method": "/service/Method", "metadata": [["name", "value"], ...], "body": bytes, "streams": bool, "beside": bool};
one that goes on beside the next is read last.
"""

import json
import sys

import grpc


def bytes_as_they_are(message):
    return message


def told(call, streams):
    try:
        messages = list(call) if streams else [call.result()]
        return {"code": 0, "details": "", "messages": len(messages), "metadata": {}}
    except grpc.RpcError as error:
        metadata = list(error.initial_metadata() or ()) + list(error.trailing_metadata() or ())
        return {"code": error.code().value[0], "details": error.details(), "metadata": dict(metadata)}


def start(channel, call):
    make = channel.unary_stream if call.get("streams") else channel.unary_unary
    method = make(call["method"], bytes_as_they_are, bytes_as_they_are)
    arguments = {"metadata": call.get("metadata", []), "timeout": 20}
    body = b"x" * call.get("body", 0)
    return method(body, **arguments) if call.get("streams") else method.future(body, **arguments)


with grpc.insecure_channel(sys.argv[1]) as channel:
    results, beside = {}, []
    for number, call in enumerate(json.load(sys.stdin)):
        started = start(channel, call)
        if call.get("beside"):
            beside.append((number, started, call.get("streams")))
        else:
            results[number] = told(started, call.get("streams"))
    results.update((number, told(started, streams)) for number, started, streams in beside)
    print(json.dumps([results[number] for number in sorted(results)]))
