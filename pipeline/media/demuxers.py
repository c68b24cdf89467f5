"""FFmpeg's demuxers that read one file and nothing else, by name.

FFmpeg recognises a format by content, so that a playlist under any name could make it open other
files or the network. A demuxer is listed here only if it cannot, whatever its file says.
"""

_ALLOWED = """
3dostr 3g2 3gp 4xm aa aac aax ac3 ac4 ace acm act adp ads adx aea afc aiff aix alias_pix alp amr
amrnb amrwb anm apac apc ape apm apng apv aqtitle argo_asf argo_brp argo_cvg asf asf_o ass ast
au av1 avi avr avs avs2 avs3 bethsoftvid bfi bfstm bink binka bit bmp_pipe bmv boa bonk
brender_pix brstm c93 caf cavsvideo cdg cdxl cine codec2 cri_pipe daud dcstr dds_pipe derf dfa
dhav dirac dnxhd dpx_pipe dsf dsicin dss dts dtshd dv dvbsub dvbtxt dxa ea ea_cdata eac3 epaf
evc exr_pipe film_cpk filmstrip fits flac flic flv frm fsb fwse g723_1 g729 gdv gem_pipe genh
gif gif_pipe gsm gxf h261 h263 h264 hca hcom hdr_pipe hevc hnm hxvs iamf ico idcin iff ifv ilbc
image2pipe ingenient ipmovie ipu ircam iss iv8 ivf ivr j2k_pipe jacosub jpeg_pipe jpegls_pipe
jpegxl_anim jpegxl_pipe jpegxs_pipe jv kux kvag laf lc3 live_flv lmlm4 loas lrc luodat lvf lxf
m4a m4v matroska mca mcc mgsts microdvd mj2 mjpeg mjpeg_2000 mlp mm mmf mods moflex mov mp3 mp4
mpc mpc8 mpeg mpegts mpegvideo mpjpeg mpl2 mpsub msf msnwctcp msp mtaf mtv musx mv mvi mxf mxg
nc nistsphere nsp nsv nut nuv obu ogg oma osq paf pam_pipe pbm_pipe pcx_pipe pdv pfm_pipe
pgm_pipe pgmyuv_pipe pgx_pipe phm_pipe photocd_pipe pictor_pipe pjs pmp png_pipe pp_bnk ppm_pipe
psd_pipe psxstr pva pvf qcp qdraw_pipe qoa qoi_pipe r3d rcwt realtext redspark rka rl2 rm roq
rpl rsd rso s337m sami scc scd sdns sdr2 sds sdx ser sga sgi_pipe shn siff simbiosis_imx smjpeg
smk smush sol sox spdif srt stl subviewer subviewer1 sunrast_pipe sup svag svs swf tak
tedcaptions thp tiertexseq tiff_pipe tmv truehd tta txd ty usm vag vbn_pipe vc1 vc1test vividas
vivo vmd voc vpk vplayer vqf vvc w64 wady wav wavarc wc3movie webm webp_pipe webvtt wsaud wsd
wsvqa wtv wv wve xa xbm_pipe xmd xmv xpm_pipe xvag xwd_pipe xwma yop yuv4mpegpipe
"""

ALLOWED_DEMUXERS = frozenset(_ALLOWED.split())

REFUSED_DEMUXERS = {
    "opens the files or addresses that its file names": (
        "concat dash hls image2 imf lavfi mlv sap sdp rtp rtsp svg_pipe vobsub webm_dash_manifest"
    ),
    "reads a device": "alsa fbdev kmsgrab oss v4l2 video4linux2 x11grab",
    "draws text": "adf bin bintext idf sbg tty xbin",
    "takes any bytes, as its format has no header": (
        "alaw aptx aptx_hd bitpacked codec2raw data dfpwm f32be f32le f64be f64le ffmetadata g722 "
        "g726 g726le g728 mpegtsraw msbc mulaw rawvideo s16be s16le s24be s24le s32be s32le s8 sbc "
        "sln u16be u16le u24be u24le u32be u32le u8 v210 v210x vidc"
    ),
}
"""The others, and why."""
