"""Play one second of a 440 Hz sine to the neural network of basic-pitch, and print which note it heard.

    python examples/client_pitch.py [URL] [FREQUENCY]

Needs numpy and tritonclient[http]. The network hears 43,844 samples at 22,050 Hz (two seconds) and answers, for each of 172 moments, how likely
each of the 88 keys of a piano sounds; key 0 is A0, 27.5 Hz.
"""

import os
import sys

import numpy as np
import tritonclient.http as triton

URL = os.environ.get("DRAGOMAN_URL", "http://127.0.0.1:3000")
RATE, SAMPLES = 22_050, 43_844
NAMES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")
NOTES = "StatefulPartitionedCall:1"  # of the network's three outputs, the one that says which notes sound


def note(key: int) -> str:
    """The name of a piano key: 0 is A0, 48 is A4."""
    return f"{NAMES[key % 12]}{(key + 9) // 12}"


def main(url: str = URL, frequency: float = 440.0) -> None:
    audio = np.zeros((1, SAMPLES, 1), np.float32)
    audio[0, :RATE, 0] = 0.5 * np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        name = client.get_model_metadata("pitch")["inputs"][0]["name"]
        tensor = triton.InferInput(name, list(audio.shape), "FP32")
        tensor.set_data_from_numpy(audio)  # 175 kB of raw bytes, no JSON
        heard = client.infer("pitch", [tensor], outputs=[triton.InferRequestedOutput(NOTES)]).as_numpy(NOTES)
    loudness = heard[0, : heard.shape[1] // 2].mean(axis=0)
    key = int(loudness.argmax())
    print(f"{frequency:g} Hz sounds like {note(key)} ({27.5 * 2 ** (key / 12):.1f} Hz), probability {loudness[key]:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(float, sys.argv[2:3]))
