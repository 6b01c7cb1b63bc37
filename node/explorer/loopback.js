// A WebRTC call between two ends in this page: sound goes out over one connection and comes in over another, through
// the browser's whole media stack. An application of one's own has its own RTCPeerConnection in this one's place.

const STATS_MS = 1_000;
const CONNECT_MS = 15_000;

/** A call in this page. */
export class LoopbackCall {
  /** codec: "PCMU", "PCMA", "opus"; source: "tone" or "microphone"; onStats: called with each report. */
  constructor({ codec, source, onStats }) {
    this.codec = codec;
    this.source = source;
    this.onStats = onStats;
    this.reports = [];
    this.setupMs = 0;
    this.answerMs = 0;
    this.endMs = 0;
  }

  /** Set up the call; return when it is connected. Throws where the browser cannot. */
  async start() {
    this.setupMs = Date.now();
    const stream = await this.listen();
    this.caller = new RTCPeerConnection();
    this.callee = new RTCPeerConnection();
    this.caller.onicecandidate = ({ candidate }) => this.callee.addIceCandidate(candidate ?? undefined).catch(() => {});
    this.callee.onicecandidate = ({ candidate }) => this.caller.addIceCandidate(candidate ?? undefined).catch(() => {});
    // Both ends speak: the other one answers with the same sound.
    stream.getAudioTracks().forEach((track) => this.callee.addTrack(track, stream));
    this.speakers = new Audio();
    this.speakers.muted = true; // an echo of oneself, or a tone
    this.caller.ontrack = ({ streams: [heard] }) => this.hear(heard);
    const [track] = stream.getAudioTracks();
    const transceiver = this.caller.addTransceiver(track, { direction: "sendrecv", streams: [stream] });
    transceiver.setCodecPreferences(this.preferred());
    await this.negotiate();
    await this.connected();
    this.answerMs = Date.now();
    this.timer = setInterval(() => this.measure(), STATS_MS);
  }

  hear(stream) {
    this.speakers.srcObject = stream;
    this.speakers.play().catch(() => {});
  }

  preferred() {
    const { codecs } = RTCRtpReceiver.getCapabilities("audio");
    const wanted = codecs.filter((one) => one.mimeType.toLowerCase() === `audio/${this.codec}`.toLowerCase());
    if (!wanted.length) throw new Error(`This browser does not speak ${this.codec}.`);
    return wanted;
  }

  async listen() {
    if (this.source === "microphone") {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      return this.stream;
    }
    this.audio = new AudioContext();
    const tone = new OscillatorNode(this.audio, { frequency: 440 });
    const quiet = new GainNode(this.audio, { gain: 0.2 });
    const out = this.audio.createMediaStreamDestination();
    tone.connect(quiet).connect(out);
    tone.start();
    this.stream = out.stream;
    return this.stream;
  }

  async negotiate() {
    await this.caller.setLocalDescription();
    await this.callee.setRemoteDescription(this.caller.localDescription);
    await this.callee.setLocalDescription();
    await this.caller.setRemoteDescription(this.callee.localDescription);
  }

  connected() {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("The call did not connect.")), CONNECT_MS);
      const look = () => {
        if (this.caller.connectionState === "connected") {
          clearTimeout(timer);
          resolve();
        } else if (this.caller.connectionState === "failed") {
          clearTimeout(timer);
          reject(new Error("The call did not connect."));
        }
      };
      this.caller.onconnectionstatechange = look;
      look();
    });
  }

  async measure() {
    const report = [...(await this.caller.getStats()).values()];
    this.reports.push(report);
    this.onStats(report, Date.now() - this.answerMs);
  }

  /** Measure once more and hang up; return the reports. */
  async end() {
    clearInterval(this.timer);
    if (this.answerMs) {
      await this.measure();
      this.endMs = Date.now();
    }
    this.caller?.close();
    this.callee?.close();
    this.stream?.getTracks().forEach((track) => track.stop());
    await this.audio?.close();
    return this.reports;
  }
}
